"""``DemixTerminator`` stops when, and only when, nothing is left to gain."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.terminator import BaseTerminator

from optuna_demix import DemixSampler, DemixTerminator, MixtureSpace, recommend

SPACE = MixtureSpace(["general", "code", "math"])
TARGET = np.array([0.5, 0.3, 0.2])


def run(noise: float, n_trials: int, **kwargs: object) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))

    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(SPACE.suggest(trial).values()))
        draw = np.random.default_rng([7, trial.number]).standard_normal()
        return float(-np.sum((w - TARGET) ** 2) + noise * draw)

    study.optimize(objective, n_trials=n_trials, **kwargs)  # type: ignore[arg-type]
    return study


def test_it_stops_a_noisy_study_and_what_is_found_then_is_good() -> None:
    terminator = DemixTerminator(SPACE)
    assert isinstance(terminator, BaseTerminator)
    study = run(0.02, 120, callbacks=[terminator])
    assert 20 <= len(study.trials) < 120
    found = recommend(study, SPACE)
    assert found.converged
    w = np.array(list(found.merge_weights.values()))
    assert np.sum((w - TARGET) ** 2) < 0.02  # within one trial's noise of the optimum


def test_it_does_not_stop_before_anything_is_known() -> None:
    study = run(0.02, 6)
    assert not DemixTerminator(SPACE).should_terminate(study)
    early = recommend(run(0.0, 4), SPACE)
    late = recommend(run(0.0, 40), SPACE)
    assert not early.converged
    assert early.expected_gain > 5 * late.expected_gain


def test_one_terminator_serves_several_studies() -> None:
    terminator = DemixTerminator(SPACE, min_n_trials=8)
    converged = run(0.05, 60)
    assert terminator.should_terminate(converged)
    assert not terminator.should_terminate(run(0.05, 5))
    assert terminator.should_terminate(converged)


@pytest.mark.parametrize("change", [{"min_n_trials": 0}, {"kl": -1.0}, {"surrogate": "magic"}])
def test_arguments_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DemixTerminator(SPACE, **change)  # type: ignore[arg-type]
