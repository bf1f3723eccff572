"""What a failed trial leaves to the one that repeats it."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix.attributes import (
    BLOCKS_ATTR,
    FAILURE_ATTR,
    ITEMS_PREFIX,
    LEASE_ATTR,
    PARTIAL_PREFIX,
    PREDICTED_PREFIX,
    PREDICTED_STD_PREFIX,
    SCORE_PREFIX,
    WORKER_ATTR,
)
from optuna_demix.storage.requeue import MAX_RETRIES, requeue


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def test_nothing_of_the_first_attempt_is_left(study: optuna.Study) -> None:
    """Scores on some of the items stayed when a worker died between writing and pruning."""
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    for prefix in (
        SCORE_PREFIX, PARTIAL_PREFIX, ITEMS_PREFIX, PREDICTED_PREFIX, PREDICTED_STD_PREFIX,
    ):  # fmt: skip
        trial.set_user_attr(f"{prefix}a", 1.0)
    for name in (BLOCKS_ATTR, WORKER_ATTR, FAILURE_ATTR):
        trial.set_user_attr(name, "first")
    trial.set_user_attr("note", "kept")
    study._storage.set_trial_system_attr(trial._trial_id, LEASE_ATTR, 7)
    study.tell(trial, state=TrialState.FAIL)
    requeue(study, study.trials[0])
    queued = study.trials[1]
    assert queued.state == TrialState.WAITING and queued.params == trial.params
    assert queued.user_attrs == {"note": "kept"} and LEASE_ATTR not in queued.system_attrs


def test_a_mixture_is_given_up_when_it_has_failed_too_often(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    for n_attempts in range(1, MAX_RETRIES + 2):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        study.tell(trial, state=TrialState.FAIL)
        requeue(study, study.trials[-1])
        assert len(study.trials) == min(n_attempts + 1, MAX_RETRIES + 1)


def test_a_trial_without_parameters_leaves_nothing_to_repeat(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    requeue(study, study.trials[0])
    assert len(study.trials) == 1
