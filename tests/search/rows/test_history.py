"""What finished trials become: rows to learn from, failures, and places that are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import RetryFailedTrialCallback
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_demix import MixtureSpace
from optuna_demix.search.rows.history import History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets

SPACE = MixtureSpace(["web", "code"])


def trial(web: float, state: TrialState = TrialState.COMPLETE, **kwargs: Any) -> FrozenTrial:
    if state == TrialState.COMPLETE:
        kwargs.setdefault("value", web)
    return create_trial(
        state=state,
        params={"web": web, "code": 1.0 - web},
        distributions=SPACE.distributions(),
        **kwargs,
    )


def history_of(study: optuna.Study) -> History:
    history = History(JointSpace([SPACE], {}), Targets.of(study))
    history.update(study.get_trials(deepcopy=False))
    return history


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def test_failed_and_refused_trials_are_failures(study: optuna.Study) -> None:
    study.add_trials(
        [
            trial(0.1),
            trial(0.2, TrialState.FAIL),
            trial(0.3, TrialState.PRUNED),  # before it reported anything
            trial(0.4, TrialState.PRUNED, intermediate_values={0: float("nan")}),
            trial(0.5, TrialState.PRUNED, intermediate_values={0: 1.0}),
            create_trial(state=TrialState.FAIL),  # before it had a mixture
        ]
    )
    known = history_of(study).arrays()
    assert known.numbers.tolist() == [0, 4] and known.complete.tolist() == [True, False]
    assert known.failures.numbers.tolist() == [1, 2, 3]
    np.testing.assert_allclose(known.failures.X[:, 0], [0.2, 0.3, 0.4])


def test_failures_come_with_the_trials_they_lie_between(study: optuna.Study) -> None:
    study.add_trials([trial(0.1), trial(0.2, TrialState.FAIL), trial(0.3), trial(0.4)])
    study.add_trial(trial(0.5, TrialState.FAIL))
    known = history_of(study).arrays()
    assert known.first(1).failures.numbers.tolist() == [1]
    assert known.first(2).failures.numbers.tolist() == [1]
    assert known.first(3).failures.numbers.tolist() == [1, 4]
    assert known.before(1).failures.numbers.tolist() == []
    assert known.take(np.array([2])).failures.numbers.tolist() == [1, 4]


def test_a_trial_that_is_repeated_says_nothing_of_its_mixture(study: optuna.Study) -> None:
    """Its worker was lost or told to stop; the repeat, once it has ended, does."""
    study.add_trials([trial(0.1), trial(0.2, TrialState.FAIL), trial(0.3, TrialState.FAIL)])
    history = history_of(study)
    assert history.arrays().failures.numbers.tolist() == [1, 2]
    RetryFailedTrialCallback(max_retry=3)(study, study.trials[1])
    history.update(study.get_trials(deepcopy=False))
    assert history.arrays().failures.numbers.tolist() == [2]
    repeat = study.ask()
    assert SPACE.suggest(repeat)["web"] == pytest.approx(0.2)
    study.tell(repeat, state=TrialState.FAIL)
    history.update(study.get_trials(deepcopy=False))
    assert history.arrays().failures.numbers.tolist() == [2, 3]
    assert history_of(study).arrays().failures.numbers.tolist() == [2, 3]


def test_every_finished_trial_with_a_mixture_takes_its_place(study: optuna.Study) -> None:
    study.add_trials(
        [
            trial(0.1),
            trial(0.2, TrialState.FAIL),
            trial(0.3, TrialState.PRUNED),
            trial(0.4, TrialState.PRUNED, intermediate_values={0: 1.0}),
            trial(0.5, TrialState.WAITING),
            create_trial(state=TrialState.FAIL),
        ]
    )
    np.testing.assert_allclose(history_of(study).taken[:, 0], [0.1, 0.2, 0.3, 0.4])


def test_trials_that_finish_out_of_order_end_up_in_order(study: optuna.Study) -> None:
    first, second, third = study.ask(), study.ask(), study.ask()
    for each in (first, second, third):
        SPACE.suggest(each)
    history = history_of(study)
    for each, state in ((third, TrialState.FAIL), (second, None), (first, TrialState.FAIL)):
        if state is None:
            study.tell(each, 1.0)
        else:
            study.tell(each, state=state)
        history.update(study.get_trials(deepcopy=False))
    assert history.arrays().failures.numbers.tolist() == [0, 2]
    assert history.arrays().numbers.tolist() == [1]
    assert len(history.taken) == 3
