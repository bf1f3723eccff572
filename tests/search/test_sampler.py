"""What ``DemixSampler`` promises beyond Optuna's conformance suites."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import TrialState

from optuna_demix import DemixSampler, Group, MixtureSpace, recommend
from optuna_demix.attributes import PROPOSAL_ATTR
from optuna_demix.errors import DemixError
from optuna_demix.search.proposals.demix import iteration_of
from optuna_demix.search.proposals.state import fit_size

SPACE = MixtureSpace(
    ["general", "code", "math", "docs"],
    upper={"code": 0.5},
    groups=[Group("hard", ["code", "math"], lower=0.1, upper=0.7)],
)
TARGET = np.array([0.2, 0.35, 0.3, 0.15])


def score(weights: dict[str, float]) -> float:
    return -float(np.sum((np.array(list(weights.values())) - TARGET) ** 2))


def objective(trial: optuna.Trial) -> float:
    return score(SPACE.suggest(trial))


def weights_of(study: optuna.Study, space: MixtureSpace = SPACE) -> np.ndarray:
    return np.array([[t.params[name] for name in space.param_names] for t in study.trials])


@pytest.mark.parametrize("kwargs", [{}, {"schedule": "demix", "schedule_sizes": (8, 4)}])
def test_every_trial_lies_inside_the_constraints(kwargs: dict[str, Any]) -> None:
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, pool_size=2000, **kwargs)
    )
    study.optimize(objective, n_trials=16)
    W = weights_of(study)
    assert np.all(np.abs(W.sum(axis=1) - 1) < 1e-12)
    assert np.all(SPACE.contains(W))
    assert len(np.unique(W, axis=0)) == len(W)
    assert not any(SPACE.weights_key in t.user_attrs for t in study.trials)


def test_it_starts_at_the_prior_and_beats_random_search() -> None:
    regrets = {}
    for name, sampler in {
        "ours": DemixSampler(SPACE, seed=1),
        "random": RandomSampler(seed=1),
    }.items():
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=28)
        regrets[name] = -study.best_value
        if name == "ours":
            assert weights_of(study)[0] == pytest.approx(SPACE.prior)
    assert regrets["ours"] < 0.2 * regrets["random"]


def test_minimising_is_maximising_the_negative() -> None:
    drawn = []
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        study = optuna.create_study(direction=direction, sampler=DemixSampler(SPACE, seed=1))
        study.optimize(lambda trial, s=sign: s * objective(trial), n_trials=14)
        drawn.append(weights_of(study))
    assert np.array_equal(*drawn)


def test_workers_that_share_a_seed_never_draw_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(storage=url, study_name="mix", direction="maximize").optimize(
        objective, n_trials=10
    )
    barrier = threading.Barrier(4)

    def ask(_: int) -> optuna.Trial:
        study = optuna.load_study(
            storage=url, study_name="mix", sampler=DemixSampler(SPACE, seed=0)
        )
        barrier.wait()
        trial = study.ask()
        SPACE.suggest(trial)
        return trial

    with ThreadPoolExecutor(4) as pool:
        trials = list(pool.map(ask, range(4)))
    assert len({tuple(trial.params.values()) for trial in trials}) == 4


def test_a_resumed_study_goes_on_with_the_same_sequence() -> None:
    whole = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=5))
    whole.optimize(objective, n_trials=13)
    parts = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=5))
    parts.optimize(objective, n_trials=9)
    parts.sampler = DemixSampler(SPACE, seed=5)
    parts.optimize(objective, n_trials=4)
    assert np.array_equal(weights_of(whole), weights_of(parts))


def test_it_learns_from_trials_of_another_sampler() -> None:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    study.optimize(objective, n_trials=30)
    before = study.best_value
    study.sampler = DemixSampler(SPACE, seed=0)
    study.optimize(objective, n_trials=6)
    assert study.best_value > 0.5 * before  # regrets are negative: less than half is left


@pytest.mark.parametrize("startup", [0, 100], ids=["model", "startup"])
def test_enqueued_weights_are_kept_and_completed(startup: int) -> None:
    sampler = DemixSampler(SPACE, seed=0, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=4)
    study.enqueue_trial({"code": 0.25})
    study.enqueue_trial({"general": 0.4, "code": 0.1, "math": 0.3, "docs": 0.2})
    study.optimize(objective, n_trials=2)
    W = weights_of(study)[4:]
    assert W[0, 1] == 0.25
    assert W[1] == pytest.approx([0.4, 0.1, 0.3, 0.2])
    assert np.all(SPACE.contains(W))


def test_impossible_enqueued_weights_warn_and_are_projected() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.enqueue_trial({"code": 0.4, "math": 0.9})
    with pytest.warns(UserWarning, match="Trial 0: its fixed weights"):
        study.optimize(objective, n_trials=1)
    weights = SPACE.weights(study.trials[0])
    assert weights is not None and SPACE.contains(weights)


def test_partial_fixed_sampler_conditions_the_rest() -> None:
    base = DemixSampler(SPACE, seed=0, n_startup_trials=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = PartialFixedSampler({"math": 0.3}, base)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=6)
    W = weights_of(study)
    assert np.all(W[:, 2] == 0.3) and np.all(SPACE.contains(W))


def test_two_mixtures_and_other_parameters_share_a_study() -> None:
    spaces = [MixtureSpace(["a", "b"], name="early"), MixtureSpace(["a", "b", "c"], name="late")]

    def mixed(trial: optuna.Trial) -> float:
        early, late = (space.suggest(trial) for space in spaces)
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        return early["a"] * late["c"] - abs(np.log10(rate) + 2)

    study = optuna.create_study(direction="maximize", sampler=DemixSampler(spaces, seed=0))
    study.optimize(mixed, n_trials=20)
    for space in spaces:
        W = weights_of(study, space)
        assert np.all(np.abs(W.sum(axis=1) - 1) < 1e-12)
    assert study.best_value > 0.6
    assert 1e-3 < study.best_params["rate"] < 1e-1


def test_a_retried_trial_gets_its_own_mixture_back() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.optimize(objective, n_trials=12)
    lost = study.trials[-1]
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params={"general": lost.params["general"]},
            distributions={"general": lost.distributions["general"]},
            system_attrs={PROPOSAL_ATTR: lost.system_attrs[PROPOSAL_ATTR]},
        )
    )
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].params == lost.params


@pytest.mark.parametrize(
    "value", [0.0, float("inf"), float("-inf")], ids=["constant", "inf", "-inf"]
)
def test_scores_that_say_nothing_do_not_stop_it(value: float) -> None:
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0, n_startup_trials=1)
    )
    study.optimize(lambda trial: value + 0 * objective(trial), n_trials=6)
    assert np.all(SPACE.contains(weights_of(study)))


def test_constant_scores_are_told_once() -> None:
    sampler = DemixSampler(SPACE, seed=0, n_startup_trials=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        study.optimize(lambda trial: 0 * objective(trial), n_trials=9)
    assert len(told) == 1 and "are equal" in str(told[0].message)


def test_infinite_scores_are_told_and_rank_last() -> None:
    sampler = DemixSampler(SPACE, seed=0, n_startup_trials=6)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def barred(trial: optuna.Trial) -> float:
        w = SPACE.suggest(trial)
        return float("-inf") if w["docs"] > 0.3 else score(w)

    with pytest.warns(UserWarning, match="Trials? .* infinite score; it counts as"):
        study.optimize(barred, n_trials=24)
    late = [t for t in study.trials[12:] if t.value == float("-inf")]
    assert len(late) < 3


def test_trials_of_a_changed_space_are_passed_over_and_told() -> None:
    small = MixtureSpace(["general", "code"])
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(small, seed=0))
    study.optimize(lambda trial: small.suggest(trial)["code"], n_trials=3)
    study.sampler = DemixSampler(SPACE, seed=0)
    with pytest.warns(UserWarning, match="Trials 0, 1, 2 finished without a weight .*warm_start"):
        study.optimize(objective, n_trials=1)
    assert SPACE.contains(weights_of_one(study.trials[-1]))


def test_trials_outside_the_constraints_are_told_and_not_followed() -> None:
    wide = MixtureSpace(SPACE.components)
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(wide, seed=0))
    study.optimize(lambda trial: wide.suggest(trial)["code"], n_trials=12)
    study.sampler = DemixSampler(SPACE, seed=0)
    with pytest.warns(UserWarning, match="outside the constraints"):
        study.optimize(lambda trial: SPACE.suggest(trial)["code"], n_trials=6)
    late = np.array([weights_of_one(trial) for trial in study.trials[12:]])
    assert np.all(SPACE.contains(late)) and late[:, 1].max() > 0.4


def weights_of_one(trial: optuna.trial.FrozenTrial) -> np.ndarray:
    return np.array([trial.params[name] for name in SPACE.param_names])


def test_constraints_of_trials_are_kept_to() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))

    def limited(trial: optuna.Trial) -> float:
        w = SPACE.suggest(trial)
        trial.set_constraint("cost", w["code"] + w["math"] - 0.45)  # the optimum has 0.65
        return score(w)

    study.optimize(limited, n_trials=24)
    late = study.trials[12:]
    assert np.mean([t.constraints["cost"] <= 0 for t in late]) >= 0.5
    found = recommend(study, SPACE)
    assert found.merge_weights["code"] + found.merge_weights["math"] <= 0.46
    best = study.trials[found.best_trial]
    assert best.constraints["cost"] <= 0
    assert best.value == max(t.value for t in study.trials if t.constraints["cost"] <= 0)


def test_divergence_from_the_prior_costs_merit() -> None:
    space = MixtureSpace(["a", "b", "c"], prior=[0.6, 0.3, 0.1])
    far = []
    for kl in (0.0, 1.0, 100.0):
        study = optuna.create_study(
            direction="maximize", sampler=DemixSampler(space, seed=0, kl=kl)
        )
        study.optimize(lambda trial: space.suggest(trial)["c"], n_trials=14)
        w = np.array(list(recommend(study, space).merge_weights.values()))
        w = np.maximum(w, 1e-12)
        far.append(float(np.sum(w * np.log(w / space.prior))))
    assert far[0] > 1.5 and far[1] < 0.7 * far[0] and far[2] < 0.02


def test_a_lucky_best_is_evaluated_again_but_not_for_ever() -> None:
    def noisy(trial: optuna.Trial) -> float:
        luck = 5.0 if trial.number == 9 else 0.0
        return score(SPACE.suggest(trial)) + luck

    for reevaluate, times in ((False, 1), (True, 3)):
        sampler = DemixSampler(SPACE, seed=0, reevaluate=reevaluate)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(noisy, n_trials=16)
        W = weights_of(study)
        assert int((np.abs(W - W[9]).sum(axis=1) < 1e-9).sum()) in range(1, times + 1)
        if reevaluate:
            assert int((np.abs(W - W[9]).sum(axis=1) < 1e-9).sum()) > 1


def test_a_grown_list_of_components_keeps_its_old_trials() -> None:
    old = MixtureSpace(["general", "code"])
    grown = MixtureSpace(["general", "code", "math"])

    best = {"general": 0.3, "code": 0.3, "math": 0.4}

    def value(w: dict[str, float]) -> float:
        return -sum((w.get(c, 0.0) - t) ** 2 for c, t in best.items())

    first = optuna.create_study(direction="maximize", sampler=DemixSampler(old, seed=0))
    first.optimize(lambda trial: value(old.suggest(trial)), n_trials=16)
    found = {}
    for warm in ((), (first,)):
        sampler = DemixSampler(grown, seed=0, warm_start=warm)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: value(grown.suggest(trial)), n_trials=11)
        W = np.array([[t.params[c] for c in grown.components] for t in study.trials])
        assert (W[:, 2] > 0).sum() >= 4
        found[bool(warm)] = study.best_value
    assert found[True] > 0.5 * found[False]  # regrets are negative: less than half is left


def test_trials_of_an_earlier_study_that_do_not_fit_are_told() -> None:
    old = MixtureSpace(["general", "web"])
    first = optuna.create_study(direction="maximize", sampler=DemixSampler(old, seed=0))
    first.optimize(lambda trial: old.suggest(trial)["web"], n_trials=3)
    sampler = DemixSampler(SPACE, seed=0, warm_start=[first])
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with pytest.warns(UserWarning, match="3 finished trials .* give weight to components"):
        study.optimize(objective, n_trials=1)
    two = optuna.create_study(directions=["maximize", "maximize"])
    study.sampler = DemixSampler(SPACE, seed=0, warm_start=[two])
    with pytest.raises(DemixError, match="has 2 objectives and this one 1"):
        SPACE.suggest(study.ask())


def test_a_study_of_failures_goes_on_sampling() -> None:
    study = optuna.create_study(sampler=DemixSampler(SPACE, seed=0, n_startup_trials=1))

    def fail(trial: optuna.Trial) -> float:
        SPACE.suggest(trial)
        raise RuntimeError

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        study.optimize(fail, n_trials=7, catch=(RuntimeError,))
    W = weights_of(study)
    assert np.all(SPACE.contains(W)) and len(np.unique(W, axis=0)) == 7
    assert ["has a score to learn from" in str(w.message) for w in told] == [True]


def test_threads_may_share_a_sampler() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.optimize(objective, n_trials=16, n_jobs=4)
    W = weights_of(study)
    assert np.all(SPACE.contains(W)) and len(np.unique(W, axis=0)) == 16


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"schedule": "weekly"}, "schedule"),
        ({"surrogate": "forest"}, "forest"),
        ({"composite": "max"}, "composite"),
        ({"n_startup_trials": -1}, "n_startup_trials"),
        ({"schedule_sizes": ()}, "schedule_sizes"),
        ({"exploration": -1.0}, "exploration"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DemixSampler(SPACE, **kwargs)


def test_mixtures_with_a_common_component_are_refused() -> None:
    with pytest.raises(ValueError, match="name="):
        DemixSampler([MixtureSpace(["a", "b"]), MixtureSpace(["b", "c"])])


def test_paper_iterations_follow_their_sizes() -> None:
    numbers = [0, 63, 64, 95, 96, 111, 112, 127, 128]
    starts = [iteration_of(n, (64, 32, 16))[0] for n in numbers]
    assert starts == [0, 0, 64, 64, 96, 96, 112, 112, 128]


def test_fits_grow_with_the_study() -> None:
    sizes = [fit_size(n) for n in range(1, 2000)]
    assert sizes[:32] == list(range(1, 33)) and sizes == sorted(sizes)
    assert all(n - size <= n / 16 for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 120  # few fits for many trials


def test_equal_scores_are_said_to_be_equal_and_others_are_not() -> None:
    for objective, is_equal in ((lambda w: 1.0, True), (lambda w: next(iter(w.values())), False)):
        study = optuna.create_study(sampler=DemixSampler(SPACE, seed=0, n_startup_trials=2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            study.optimize(lambda trial, f=objective: f(SPACE.suggest(trial)), n_trials=6)  # type: ignore[misc]
        assert any("are equal" in str(warning.message) for warning in caught) == is_equal
