"""Where trials fail the search does not return, and nothing there is recommended."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.errors import StudyError

SPACE = MixtureSpace(["web", "code", "math", "docs"])
OPTIMUM = np.array([0.5, 0.25, 0.15, 0.1])
N_TRIALS = 36
TPE_FAILURES = 7  # of TPESampler on `rising`, the fewest of seeds 0 to 2

Weights = np.ndarray


class _Broken(Exception):
    pass


def _raise() -> float:
    raise _Broken


def _refuse() -> float:
    raise optuna.TrialPruned


ENDINGS: dict[str, Callable[[], float]] = {
    "raises": _raise,
    "is no number": lambda: float("nan"),
    "is refused": _refuse,
}


def search(
    value: Callable[[Weights], float],
    fails: Callable[[Weights, int], bool],
    *,
    end: Callable[[], float] = _raise,
    seed: int = 0,
    n_trials: int = N_TRIALS,
    **kwargs: Any,
) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(SPACE.suggest(trial).values()))
        return end() if fails(w, trial.number) else float(value(w))

    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=seed, **kwargs)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=n_trials, catch=(_Broken,))
    return study


def weights_of(study: optuna.Study) -> Weights:
    return np.array([[t.params[name] for name in SPACE.components] for t in study.trials])


def n_failed(study: optuna.Study) -> int:
    return sum(trial.state != TrialState.COMPLETE for trial in study.trials)


def recommended(study: optuna.Study) -> Weights:
    return np.array(list(recommend(study).merge_weights.values()))


def rising(w: Weights) -> float:
    """More web is better, as far as it works."""
    return float(w[0])


def peaked(w: Weights) -> float:
    return -float(np.sum((w - OPTIMUM) ** 2))


def beyond(w: Weights, number: int) -> bool:
    return bool(w[0] > 0.6)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(end, id=name, marks=pytest.mark.slow if name != "raises" else ())
        for name, end in ENDINGS.items()
    ],
)
def test_a_search_that_is_drawn_to_a_failing_corner_stops_at_its_border(
    end: Callable[[], float],
) -> None:
    study = search(rising, beyond, end=end)
    assert n_failed(study) < TPE_FAILURES
    assert study.best_value > 0.58  # 0.6 is the most that works
    assert 0.55 < recommended(study)[0] <= 0.6


def test_an_optimum_beside_a_failing_corner_is_found() -> None:
    optimum = np.array([0.58, 0.2, 0.12, 0.1])
    study = search(lambda w: -float(np.sum((w - optimum) ** 2)), beyond, n_trials=30)
    assert n_failed(study) < 5
    assert 0.5 * np.abs(recommended(study) - optimum).sum() < 0.1
    assert recommended(study)[0] <= 0.6


def test_a_corner_of_success_is_found_where_most_mixtures_fail() -> None:
    optimum = np.array([0.7, 0.2, 0.1, 0.0])
    study = search(
        lambda w: -float(np.sum((w - optimum) ** 2)),
        lambda w, number: bool(w[0] < 0.5),
        n_trials=30,
    )
    assert n_failed(study) < 8
    assert 0.5 * np.abs(recommended(study) - optimum).sum() < 0.1


@pytest.mark.slow
def test_failures_that_strike_anywhere_do_not_stop_the_search() -> None:
    def unlucky(w: Weights, number: int) -> bool:
        return bool(np.random.default_rng([5, number]).random() < 0.1)

    study = search(peaked, unlucky, n_trials=60)
    assert n_failed(study) > 2
    assert 0.5 * np.abs(recommended(study) - OPTIMUM).sum() < 0.05


@pytest.mark.slow
def test_a_study_in_which_every_second_trial_fails_still_converges() -> None:
    study = search(peaked, lambda w, number: number % 2 == 1, n_trials=60)
    assert 0.5 * np.abs(recommended(study) - OPTIMUM).sum() < 0.1


@pytest.mark.slow
def test_the_published_schedule_draws_no_iteration_from_a_failing_corner() -> None:
    sizes = {"schedule_sizes": (30, 15), "pool_size": 4000}
    study = search(rising, beyond, schedule="demix", n_trials=60, **sizes)
    late = weights_of(study)[45:]
    assert np.mean(late[:, 0] > 0.6) < 0.5
    assert recommended(study)[0] <= 0.6


def test_a_resumed_study_with_failures_goes_on_with_the_same_sequence() -> None:
    whole = search(rising, beyond, n_trials=16)
    part = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    part.add_trials(whole.trials[:15])
    assert n_failed(part) > 0
    trial = part.ask(SPACE.distributions())
    assert trial.params == whole.trials[15].params


def test_failures_of_an_earlier_study_are_learned_from() -> None:
    earlier = search(rising, beyond, n_trials=24)
    study = search(rising, beyond, n_trials=8, seed=1, warm_start=[earlier])
    assert 0.55 < weights_of(study)[1:, 0].max() < 0.7  # first the prior mixture


def test_a_study_without_a_score_is_refused() -> None:
    study = search(rising, lambda w, number: True, n_trials=6)
    with pytest.raises(StudyError, match="0 finished trials"):
        recommend(study)


@pytest.mark.slow
def test_no_recommended_front_reaches_into_a_failing_corner() -> None:
    sampler = DemixSampler(SPACE, seed=0, composite="pareto")
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        w = SPACE.suggest(trial)
        if w["web"] > 0.6:
            raise _Broken
        return w["web"], w["code"]

    study.optimize(objective, n_trials=40, catch=(_Broken,))
    front = recommend(study).front
    web = [mixture.merge_weights["web"] for mixture in front]
    assert max(web) > 0.5
    assert max(web) <= 0.62
