"""``DemixTerminator`` stops when, and only when, nothing is left to gain."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.terminator import BaseTerminator

from optuna_demix import DemixSampler, DemixTerminator, MixtureSpace, recommend
from optuna_demix.errors import ConfigError
from optuna_demix.search import SearchOptions
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.rows.joint_space import JointSpace
from tests.search.learning_rates import (
    SEEDS,
    best_value,
    train_and_score,
    with_learning_rate,
)

SPACE = MixtureSpace(["general", "code", "math"])
TARGET = np.array([0.5, 0.3, 0.2])


def value(w: np.ndarray, noise: float, number: int) -> float:
    draw = np.random.default_rng([7, number]).standard_normal()
    return float(-np.sum((w - TARGET) ** 2) + noise * draw)


def run(noise: float, n_trials: int, **kwargs: object) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))

    def objective(trial: optuna.Trial) -> float:
        return value(np.array(list(SPACE.suggest(trial).values())), noise, trial.number)

    study.optimize(objective, n_trials=n_trials, **kwargs)  # type: ignore[arg-type]
    return study


def ran(noise: float, n_trials: int) -> optuna.Study:
    """A study as a search might have left it: random mixtures, then some near the optimum."""
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    rng = np.random.default_rng(0)
    near = SPACE.perturb(np.tile(TARGET, (40, 1)), 0.05, rng)
    for number, w in enumerate([*SPACE.sample(20, rng), *near][:n_trials]):
        study.add_trial(SPACE.create_trial(w, value(w, noise, number)))
    return study


def test_it_stops_a_noisy_study_and_what_is_found_then_is_good() -> None:
    terminator = DemixTerminator(SPACE)
    assert isinstance(terminator, BaseTerminator)
    study = run(0.05, 120, callbacks=[terminator])
    assert 20 <= len(study.trials) < 120
    found = recommend(study, SPACE)
    assert found.converged
    w = np.array(list(found.merge_weights.values()))
    assert np.sum((w - TARGET) ** 2) < 0.02  # within one trial's noise of the optimum


def test_it_does_not_stop_before_anything_is_known() -> None:
    study = ran(0.02, 6)
    assert not DemixTerminator(SPACE).should_terminate(study)
    searched = run(0.0, 24)
    late = recommend(searched)
    begun = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    begun.add_trials(searched.trials[:4])
    early = recommend(begun)
    assert not early.converged
    gains = [one.expected_gain * one.noise["value"] for one in (early, late)]
    assert gains[0] > 5 * gains[1]


def test_it_goes_on_while_predictions_rank_nothing() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    rng = np.random.default_rng(1)
    for weights in SPACE.sample(40, rng):
        study.add_trial(SPACE.create_trial(weights, float(rng.standard_normal())))
    found = recommend(study)
    assert found.expected_gain <= 1.0  # nothing is left to gain, as far as noise can tell
    assert not found.converged
    assert not DemixTerminator().should_terminate(study)


def test_one_terminator_serves_several_studies() -> None:
    terminator = DemixTerminator(SPACE, min_n_trials=8)
    converged = ran(0.05, 60)
    assert terminator.should_terminate(converged)
    assert not terminator.should_terminate(ran(0.05, 5))
    assert terminator.should_terminate(converged)


def test_it_can_be_copied_to_another_process() -> None:
    study = ran(0.05, 60)
    terminator = DemixTerminator(SPACE, min_n_trials=8)
    assert terminator.should_terminate(study)
    assert pickle.loads(pickle.dumps(terminator)).should_terminate(study)


def test_several_threads_may_call_it() -> None:
    study = run(0.05, 60, n_jobs=4, callbacks=[DemixTerminator(min_n_trials=20)])
    assert 20 <= len(study.trials) < 60


@pytest.mark.parametrize("seed", SEEDS)
def test_it_goes_on_while_other_parameters_can_still_be_improved(seed: int) -> None:
    study = with_learning_rate(seed, n_trials=32, callbacks=[DemixTerminator()])
    if len(study.trials) < 32:  # it may stop, but only where little is left
        found = recommend(study)
        value = train_and_score(found.merge_weights, found.params["learning_rate"])
        assert max(value, best_value(study)) > -0.002


def test_a_learning_rate_does_not_keep_it_from_stopping() -> None:
    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(SPACE.suggest(trial).values()))
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        draw = np.random.default_rng([7, trial.number]).standard_normal()
        missed = np.sum((w - TARGET) ** 2) + 0.1 * np.log10(rate / 1e-3) ** 2
        return float(-missed + 0.05 * draw)

    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.optimize(objective, n_trials=120, callbacks=[DemixTerminator()])
    assert 24 <= len(study.trials) < 120  # 4 (3 + 1) + 8


@pytest.mark.slow
def test_a_second_mixture_counts() -> None:
    other = MixtureSpace(["general", "math"], name="annealing")
    study = optuna.create_study(direction="maximize", sampler=DemixSampler([SPACE, other], seed=0))

    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(SPACE.suggest(trial).values()))
        annealing = other.suggest(trial)["math"]
        draw = np.random.default_rng([7, trial.number]).standard_normal()
        return float(-np.sum((w - TARGET) ** 2) - (annealing - 0.8) ** 2 + 0.02 * draw)

    study.optimize(objective, n_trials=100, callbacks=[DemixTerminator()])
    assert len(study.trials) >= 4 * 5 + 8
    found = recommend(study).mixtures["recommended"].weights
    assert found["annealing"].merge_weights["math"] == pytest.approx(0.8, abs=0.15)


def test_it_takes_its_options_from_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    study = ran(0.05, 30)
    study.sampler = DemixSampler(SPACE, seed=3, surrogate="lightgbm-linear", composite="mean")
    seen: list[tuple[str, int]] = []
    build = Fit.__init__

    def watched(self: Fit, kind: str, *rest: Any, **options: Any) -> None:
        seen.append((kind, rest[-1]))
        build(self, kind, *rest, **options)

    monkeypatch.setattr(Fit, "__init__", watched)
    DemixTerminator().should_terminate(study)
    assert set(seen) == {("lightgbm-linear", 3)}
    seen.clear()
    DemixTerminator(options=SearchOptions(seed=4)).should_terminate(study)
    assert set(seen) == {("auto", 4)}


def test_each_trial_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = ran(0.05, 25)
    study.sampler = DemixSampler(SPACE, warm_start=[ran(0.05, 8)])
    encoded: list[int] = []
    encode = JointSpace.encode

    def watched(self: JointSpace, trial: optuna.trial.FrozenTrial) -> Any:
        encoded.append(trial.number)
        return encode(self, trial)

    monkeypatch.setattr(JointSpace, "encode", watched)
    terminator = DemixTerminator()
    for n in (25, 25, 26, 27):
        if n > len(study.trials):
            study.add_trial(SPACE.create_trial(SPACE.prior, 0.0))
        terminator.should_terminate(study)
    assert sorted(encoded) == list(range(27))


def test_a_parameter_that_varies_later_is_taken_in() -> None:
    distribution = optuna.distributions.FloatDistribution(0.0, 1.0)
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    rng = np.random.default_rng(0)
    terminator = DemixTerminator(min_n_trials=8)
    for weights, dropout in zip(SPACE.sample(30, rng), [0.5] * 12 + [0.1] * 18, strict=True):
        study.add_trial(
            SPACE.create_trial(
                weights,
                float(rng.standard_normal()),
                params={"dropout": dropout},
                distributions={"dropout": distribution},
            )
        )
        if len(study.trials) % 6 == 0:
            terminator.should_terminate(study)
    assert list(recommend(study).params) == ["dropout"]


def test_trials_of_earlier_studies_do_not_let_it_stop_at_once() -> None:
    study = ran(0.05, 6)
    study.sampler = DemixSampler(SPACE, warm_start=[ran(0.05, 60)])
    assert not DemixTerminator().should_terminate(study)
    assert not recommend(study).converged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_n_trials": 0}, "min_n_trials must be a positive whole number, got 0"),
        ({"min_n_trials": 2.5}, "min_n_trials must be a positive whole number, got 2.5"),
        ({"options": {"kl": 1.0}}, "options must be SearchOptions"),
        ({"space": "web"}, "space must be a MixtureSpace or a sequence of them"),
    ],
    ids=["no trials", "half a trial", "a dict", "a name"],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemixTerminator(**arguments)


def test_it_needs_a_mixture() -> None:
    study = optuna.create_study(study_name="other", sampler=optuna.samplers.RandomSampler())
    with pytest.raises(ConfigError, match="'other' is a RandomSampler .* pass the MixtureSpace"):
        DemixTerminator().should_terminate(study)
    with pytest.raises(ConfigError, match="study must be an optuna.Study, got str"):
        DemixTerminator(SPACE).should_terminate("mix")  # type: ignore[arg-type]
