from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, Recommendation, recommend
from optuna_demix.errors import ConfigError, StudyError
from optuna_demix.search import SearchOptions
from optuna_demix.search.recommendation import verify
from tests.search.learning_rates import (
    SEEDS,
    best_value,
    train_and_score,
    with_learning_rate,
)
from tests.search.learning_rates import SPACE as LIMITED

COMPOSITION = {"web": {"web": 1.0}, "code": {"web": 0.5, "code": 0.5}, "math": {"math": 1.0}}
SPACE = MixtureSpace(
    ["web", "code", "math"], composition=COMPOSITION, prior={"web": 0.8, "code": 0.1, "math": 0.1}
)
TARGET = {"web": 0.5, "code": 0.3, "math": 0.2}


def values(weights: dict[str, float]) -> list[float]:
    loss = sum((weights[name] - TARGET[name]) ** 2 for name in TARGET)
    return [-loss, 3 * loss]  # one to maximize, one to minimize, one optimum


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=DemixSampler(SPACE, seed=0)
    )
    study.set_metric_names(["skill", "loss"])
    study.optimize(lambda trial: values(SPACE.suggest(trial)), n_trials=28)
    return study


@pytest.fixture(scope="module")
def found(study: optuna.Study) -> Recommendation:
    """What is recommended from it; replace parts of it, do not change it."""
    return recommend(study, SPACE)


@pytest.mark.parametrize("schedule", ["continuous", "demix"])
def test_it_finds_the_optimum_of_a_smooth_surface(study: optuna.Study, schedule: Any) -> None:
    result = recommend(study, SPACE, options=SearchOptions(schedule=schedule))
    distance = 0.5 * sum(abs(result.merge_weights[n] - TARGET[n]) for n in TARGET)
    assert distance < (0.03 if schedule == "continuous" else 0.35)
    assert math.isclose(sum(result.merge_weights.values()), 1.0, abs_tol=1e-12)


def test_data_shares_are_what_the_components_were_trained_on(found: Recommendation) -> None:
    w, r = found.merge_weights, found.data_shares
    assert r["web"] == pytest.approx(w["web"] + 0.5 * w["code"])
    assert r["code"] == pytest.approx(0.5 * w["code"])


def test_predictions_keep_the_orientation_of_the_study(found: Recommendation) -> None:
    prior = found.mixtures["prior"]
    assert prior.capabilities["skill"] == pytest.approx(values(prior.merge_weights)[0], abs=0.02)
    assert prior.capabilities["loss"] == pytest.approx(values(prior.merge_weights)[1], abs=0.06)


def test_verified_scores_are_measured_ones(study: optuna.Study, found: Recommendation) -> None:
    measured = verify(found, study, lambda mixture: values(mixture.merge_weights))
    for mixture in measured.mixtures.values():
        assert list(mixture.capabilities.values()) == values(mixture.merge_weights)
        assert mixture.measured and not mixture.std
    order = ["prior", "uniform", "recommended"]
    composites = [measured.mixtures[name].composite for name in order]
    assert composites == sorted(composites)
    best = study.trials[measured.best_trial]
    assert list(measured.mixtures["best_trial"].capabilities.values()) == best.values


def test_the_table_and_the_json_say_the_same(found: Recommendation) -> None:
    data = json.loads(found.to_json())
    assert data["mixtures"]["recommended"]["merge_weights"] == found.merge_weights
    for name, weight in found.merge_weights.items():
        assert any(line.split()[:2] == [name, f"{weight:.4f}"] for line in str(found).splitlines())
    assert "data share" in str(found) and "predicted" in str(found)


def test_trials_of_any_sampler_will_do() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: values(SPACE.suggest(trial))[0], n_trials=40)
    result = recommend(study, SPACE)
    assert values(result.merge_weights)[0] > study.best_value - 0.01
    assert list(result.mixtures["prior"].capabilities) == ["value"]


def test_a_study_without_trials_is_refused_by_name() -> None:
    study = optuna.create_study(study_name="empty")
    with pytest.raises(StudyError, match="'empty' has 0 finished trials.*web, code, math"):
        recommend(study, SPACE)


def test_the_recommendation_is_repeatable(study: optuna.Study, found: Recommendation) -> None:
    assert recommend(study, SPACE).to_json() == found.to_json()
    other = recommend(study, SPACE, options=SearchOptions(seed=1))
    assert other.to_json() != found.to_json()


def test_the_sampler_of_the_study_says_how_it_is_read() -> None:
    space = MixtureSpace(["a", "b", "c"], prior=[0.6, 0.3, 0.1])
    sampler = DemixSampler(space, seed=5, kl=3.0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: space.suggest(trial)["c"], n_trials=12)
    told = recommend(study, space, options=SearchOptions(seed=5, kl=3.0)).to_json()
    assert recommend(study).to_json() == told
    study.sampler = optuna.samplers.PartialFixedSampler({"a": 0.5}, sampler)
    assert recommend(study).to_json() == told
    assert recommend(study, options=SearchOptions(seed=5)).to_json() != told


def test_mistakes_in_arguments_are_told_in_one_line(
    study: optuna.Study, found: Recommendation
) -> None:
    other = optuna.create_study(study_name="other", sampler=optuna.samplers.RandomSampler())
    mistakes: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((SPACE,), {}, "study must be an optuna.Study, got MixtureSpace"),
        ((study, study), {}, "space must be a MixtureSpace or a sequence of them, got Study"),
        ((study, "web"), {}, "space must be"),
        ((study, [SPACE, None]), {}, "space must be"),
        ((study, [SPACE, SPACE]), {}, "component in common"),
        ((other,), {}, "RandomSampler and does not know its mixture; pass the MixtureSpace"),
        ((study,), {"options": {"kl": 1}}, "options must be SearchOptions, got dict"),
        ((study,), {"options": SearchOptions(composite=[1.0])}, "1 weights and the study 2"),
    ]
    for arguments, named, message in mistakes:
        with pytest.raises(ConfigError, match=message) as raised:
            recommend(*arguments, **named)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="score must return 2 values"):
        verify(found, study, lambda mixture: [0.0])


# Other parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_other_parameters_are_recommended_with_the_mixture(seed: int) -> None:
    study = with_learning_rate(seed, n_trials=28)
    found = recommend(study)
    assert list(found.params) == ["learning_rate"]
    value = train_and_score(found.merge_weights, found.params["learning_rate"])
    assert value > best_value(study) - 0.02  # a random trial is at -0.5, half of them below -0.1
    best = study.trials[found.best_trial]
    assert found.mixtures["best_trial"].params == {"learning_rate": best.params["learning_rate"]}
    for baseline in ("prior", "uniform"):
        assert found.mixtures[baseline].params == found.params


def test_table_json_and_verification_hold_the_other_parameters() -> None:
    study = with_learning_rate(0, n_trials=8)
    found = recommend(study)
    rate = found.params["learning_rate"]
    assert ["recommended", f"{rate:.4g}"] in [line.split() for line in str(found).splitlines()]
    assert json.loads(found.to_json())["mixtures"]["recommended"]["params"] == found.params
    measured = verify(
        found,
        study,
        lambda mixture: [train_and_score(mixture.merge_weights, mixture.params["learning_rate"])],
    )
    best = measured.mixtures["best_trial"]
    assert best.capabilities["value"] == study.trials[found.best_trial].value


@pytest.mark.parametrize("schedule", ["continuous", "demix"])
def test_categories_and_whole_numbers_are_ones_that_exist(schedule: Any) -> None:
    def objective(trial: optuna.Trial) -> float:
        weights = SPACE.suggest(trial)
        trial.suggest_float("constant", 3.0, 3.0)
        warmup = {"none": 0.4, "linear": 0.0, "cosine": 0.02}
        return (
            values(weights)[0]
            - warmup[trial.suggest_categorical("warmup", list(warmup))]
            - 0.01 * abs(trial.suggest_int("layers", 2, 8, step=2) - 6)
            - 0.1 * abs(trial.suggest_float("dropout", 0.0, 0.5, step=0.125) - 0.25)
        )

    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, schedule=schedule)
    )
    study.optimize(objective, n_trials=20)
    found = recommend(study)
    assert found.params["warmup"] in ("linear", "cosine")
    assert found.params["layers"] in (4, 6, 8)
    assert found.params["dropout"] in (0.125, 0.25, 0.375)
    assert found.params["constant"] == 3.0
    assert {name: type(value) for name, value in found.params.items()} == {
        "constant": float, "dropout": float, "layers": int, "warmup": str,
    }  # fmt: skip
    json.loads(found.to_json())


def test_a_parameter_that_never_varied_keeps_its_value() -> None:
    sampler = DemixSampler(LIMITED, seed=0)
    held = optuna.samplers.PartialFixedSampler({"learning_rate": 2e-3}, sampler)
    study = with_learning_rate(0, n_trials=8, sampler=held)
    found = recommend(study)
    assert found.params == {"learning_rate": 2e-3}
    assert found.least_trials == 4 * 3 + 8  # nothing can be learned of it


def test_dynamic_parameters_are_left_out() -> None:
    def objective(trial: optuna.Trial) -> float:
        weights = SPACE.suggest(trial)
        if trial.number % 2:
            trial.suggest_float("sometimes", 0.0, 1.0)
        return values(weights)[0]

    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.optimize(objective, n_trials=12)
    assert recommend(study).params == {}


# Several mixtures ------------------------------------------------------------------------------

FIRST = MixtureSpace(["web", "code"], name="pretraining")
SECOND = MixtureSpace(["chat", "code", "math"], name="annealing")


def both(web: float, annealing_math: float) -> float:
    return -((web - 0.7) ** 2) - (annealing_math - 0.5 * web) ** 2


def two_mixtures(sampler: optuna.samplers.BaseSampler, n_trials: int) -> optuna.Study:
    study = optuna.create_study(study_name="both", direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        first, second = FIRST.suggest(trial), SECOND.suggest(trial)
        return both(first["web"], second["math"])

    study.optimize(objective, n_trials=n_trials)
    return study


def test_all_mixtures_are_recommended_by_name() -> None:
    study = two_mixtures(DemixSampler([FIRST, SECOND], seed=0), 20)
    found = recommend(study, [FIRST, SECOND])
    assert found.to_json() == recommend(study).to_json()
    weights = found.mixtures["recommended"].weights
    assert list(weights) == ["pretraining", "annealing"]
    web = weights["pretraining"].merge_weights["web"]
    annealing_math = weights["annealing"].merge_weights["math"]
    assert both(web, annealing_math) > -0.01  # a random trial is at -0.2
    for one in weights.values():
        assert math.isclose(sum(one.merge_weights.values()), 1.0, abs_tol=1e-12)
    data = json.loads(found.to_json())["mixtures"]["uniform"]
    assert data["merge_weights"]["pretraining"] == {"web": 0.5, "code": 0.5}
    assert "pretraining" in str(found) and "annealing" in str(found)
    with pytest.raises(StudyError, match="2 mixtures; take weights.name. of 'pretraining'"):
        _ = found.merge_weights


def test_a_mixture_that_is_left_out_is_named() -> None:
    study = two_mixtures(DemixSampler([FIRST, SECOND], seed=0), 4)
    with pytest.raises(StudyError, match="'both' also searches the mixture 'annealing'"):
        recommend(study, FIRST)
    study = two_mixtures(optuna.samplers.RandomSampler(seed=0), 4)
    with pytest.raises(StudyError, match="'both' has another mixture, 'annealing'"):
        recommend(study, FIRST)


# Trade-offs ------------------------------------------------------------------------------------


def conflicting(trial: optuna.Trial) -> tuple[float, float]:
    """One objective wants code, one wants math, and nobody wants web."""
    weights = SPACE.suggest(trial)
    return (weights["code"] - weights["web"]) ** 3, -((1.0 - weights["math"]) ** 2)


@pytest.fixture(scope="module")
def traded() -> optuna.Study:
    sampler = DemixSampler(SPACE, seed=0, composite="pareto")
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    study.set_metric_names(["code", "math"])
    study.optimize(conflicting, n_trials=28)
    return study


def test_pareto_gives_a_front_of_trade_offs(traded: optuna.Study) -> None:
    found = recommend(traded)
    scores = np.array([list(m.capabilities.values()) for m in found.front])
    assert 10 <= len(scores) <= 20
    assert np.all(np.diff(scores[:, 0]) <= 0) and np.all(np.diff(scores[:, 1]) >= 0)
    weights = np.array([list(m.merge_weights.values()) for m in found.front])
    assert weights[0, 1] > 0.9 and weights[-1, 2] > 0.9  # from all code to all math
    assert weights[:, 0].max() < 0.1
    gaps = np.abs(np.diff(scores, axis=0)) / np.ptp(scores, axis=0)
    assert gaps.max() < 0.2  # and evenly in between
    best = max(found.front, key=lambda mixture: mixture.composite)
    assert found.mixtures["recommended"] == best
    text = str(found)
    assert f"Front: {len(scores)} mixtures" in text
    assert "the one on the front with the best mean percentile rank" in text
    assert len(json.loads(found.to_json())["front"]) == len(scores)


def test_a_front_keeps_constraints() -> None:
    sampler = DemixSampler(SPACE, seed=0, composite="pareto")
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)

    def limited(trial: optuna.Trial) -> tuple[float, float]:
        scores = conflicting(trial)
        trial.set_constraint("code", trial.params["code"] - 0.5)
        return scores

    study.optimize(limited, n_trials=16)
    found = recommend(study)
    assert found.front
    assert max(mixture.merge_weights["code"] for mixture in found.front) <= 0.52


def test_other_composites_have_no_front(found: Recommendation) -> None:
    assert found.front == ()
    assert "Front" not in str(found)
    alone = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, composite="pareto")
    )
    alone.optimize(lambda trial: values(SPACE.suggest(trial))[0], n_trials=10)
    assert recommend(alone).front == ()


# Earlier studies -------------------------------------------------------------------------------


def test_a_study_that_is_loaded_twice_counts_once(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'mix.db'}"

    def load(name: str) -> optuna.Study:
        return optuna.create_study(
            storage=url, study_name=name, load_if_exists=True, direction="maximize",
            sampler=DemixSampler(SPACE, seed=0),
        )  # fmt: skip

    for name in ("earlier", "now"):
        load(name).optimize(lambda trial: values(SPACE.suggest(trial))[0], n_trials=4)
    for warm_start, n_warm in (
        ([load("now")], 0),
        ([load("earlier"), load("earlier")], 4),
        ([load("earlier"), load("now"), load("now")], 4),
    ):
        found = recommend(load("now"), options=SearchOptions(warm_start=warm_start))
        assert (found.n_warm, found.n_trials) == (n_warm, 4 + n_warm)
    assert "from 4 trials and 4 of earlier studies" in str(found)


def test_studies_of_two_storages_are_two_studies() -> None:
    def make() -> optuna.Study:
        study = optuna.create_study(study_name="same", direction="maximize")
        study.sampler = DemixSampler(SPACE, seed=0)
        study.optimize(lambda trial: values(SPACE.suggest(trial))[0], n_trials=4)
        return study

    one, two = make(), make()
    assert (one.study_name, one._study_id) == (two.study_name, two._study_id)
    assert recommend(two, options=SearchOptions(warm_start=[one])).n_warm == 4


# What it says of convergence -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "n_trials", "said"),
    [
        (0.05, 40, "converged: .* add 0.05 times the noise of one trial, which is 0.02 in skill"),
        (1.5, 40, "not converged: further trials .* add 1.5 times the noise"),
        (1.00004, 40, "not converged: further trials .* add 1.00004 times the noise"),
        (0.05, 12, "not converged: it takes 20 trials to tell, and there are 12; .* add 0.05"),
        (0.0, 40, "converged: .* add 0 times the noise"),
        (math.inf, 40, "not converged: .* add more than the noise"),
    ],
    ids=["less", "more", "nearly equal", "too few trials", "nothing", "no noise"],
)
def test_the_words_agree_with_the_numbers(
    found: Recommendation, gain: float, n_trials: int, said: str
) -> None:
    noise = {"skill": 0.02, "loss": 0.06}
    result = replace(found, expected_gain=gain, noise=noise, n_trials=n_trials)
    assert result.least_trials == 4 * 3 + 8
    assert result.converged == said.startswith("converged")
    assert result.outlook in str(result)
    assert re.match(said, result.outlook) and result.outlook.endswith("0.06 in loss")
    json.loads(result.to_json())


# What it says against itself --------------------------------------------------------------------


def noisy(n_trials: int, *, of: float = 0.0) -> optuna.Study:
    """Random mixtures of which a share of the score is theirs and the rest is noise."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")
    for w in SPACE.sample(n_trials, rng):
        study.add_trial(SPACE.create_trial(w, of * float(w[1]) + float(rng.normal())))
    return study


def test_a_composite_is_never_more_than_all_mixtures() -> None:
    """Trials whose best one lies far above what random mixtures reach."""
    space = MixtureSpace([f"c{i}" for i in range(8)])
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    corner = np.eye(8)[0]
    for w in [*space.sample(30, rng), *space.perturb(np.tile(corner, (20, 1)), 0.02, rng)]:
        study.add_trial(space.create_trial(w, float(w[0])))
    found = recommend(study, space)
    assert found.mixtures["recommended"].merit > 1.0  # what was printed
    assert all(0.0 <= mixture.composite <= 1.0 for mixture in found.mixtures.values())
    measured = verify(found, study, lambda mixture: [9.0 * mixture.merge_weights["c0"]])
    assert measured.mixtures["recommended"].composite == 1.0
    for shown in (json.loads(found.to_json()), json.loads(measured.to_json())):
        assert shown["mixtures"]["recommended"]["composite"] == 1.0
        assert "merit" not in shown["mixtures"]["recommended"]


def test_a_good_study_has_no_warning(found: Recommendation) -> None:
    assert found.warnings == () and json.loads(found.to_json())["warnings"] == []
    assert str(found).startswith("Recommended mixture")


@pytest.mark.parametrize(
    ("n_trials", "said"),
    [
        (3, "warning: from 3 trials the surrogate predicts the same for every mixture"),
        (6, "warning: 6 trials are too few to learn from; let the study have at least 20"),
        (40, r"warning: predictions hardly rank mixtures \(out-of-fold rank correlation"),
    ],
)
def test_what_cannot_be_trusted_is_said_first(n_trials: int, said: str) -> None:
    found = recommend(noisy(n_trials), SPACE)
    assert re.match(said, str(found))
    assert json.loads(found.to_json())["warnings"] == list(found.warnings)
    assert not found.converged and found.outlook.startswith("not converged")


def test_a_best_trial_that_is_better_is_named(study: optuna.Study, found: Recommendation) -> None:
    mixtures = dict(found.mixtures)
    worse = replace(mixtures["best_trial"], composite=0.25, merit=0.25)
    told = replace(found, mixtures={**mixtures, "recommended": worse}).warnings
    composite = mixtures["best_trial"].composite
    assert told == (
        f"the best trial ({found.best_trial}) is itself predicted to be better than the "
        f"recommended mixture: composite {composite:.3g} against 0.25",
    )
    both = {name: replace(mixtures[name], composite=1.0, merit=1.1) for name in mixtures}
    assert replace(found, mixtures=both).warnings == ()
    both["best_trial"] = replace(both["best_trial"], merit=1.2)
    (line,) = replace(found, mixtures=both).warnings
    assert line.endswith("better than the recommended mixture")  # both are told as 1
    measured = verify(found, study, lambda mixture: [-sum(mixture.merge_weights.values()), 0.0])
    assert measured.warnings == ()
    scores = iter([0.0, 0.0, 5.0, 1.0])
    measured = verify(found, study, lambda mixture: [next(scores), 0.0])
    assert "is itself measured to be better" in measured.warnings[0]


# Names and traces -------------------------------------------------------------------------------


def test_a_study_of_other_parameter_names_is_told_what_to_change() -> None:
    study = noisy(4)
    with pytest.raises(StudyError, match="named without 'w/'; give the mixture no name"):
        recommend(study, MixtureSpace(list(SPACE.components), name="w"))


def test_the_only_mixture_needs_no_title() -> None:
    space = MixtureSpace(list(SPACE.components), prior=SPACE.prior, name="w")
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=0))
    study.optimize(lambda trial: space.suggest(trial)["code"], n_trials=12)
    assert set(study.trials[0].params) == {"w/web", "w/code", "w/math"}
    found = recommend(study)
    assert str(found).splitlines()[1].split() == ["merge", "weight", "data", "share"]
    assert not found.mixtures["recommended"].in_words().startswith("w")
