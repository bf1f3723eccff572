"""When a running trial counts as lost, by a clock that the test moves, and how it is reclaimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix._process_id import own_name
from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.storage.requeue import MAX_RETRIES
from optuna_demix.storage.retrying import RetryingStorage
from optuna_demix.workers.lost_trials import (
    LostTrialDetector,
    reclaim,
    reclaim_lost_trials,
    will_end,
)

ELSEWHERE = "elsewhere 0a1b2c3d 1"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


@pytest.fixture
def dead_process() -> str:
    """The name of a process of this host that lives no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{own_name().rpartition(' ')[0]} {process.pid}"


def claimed(study: optuna.Study, owner: str = ELSEWHERE) -> optuna.Trial:
    trial = study.ask()
    study._storage.set_trial_system_attr(trial._trial_id, LEASE_ATTR, 0)
    trial.set_user_attr(WORKER_ATTR, owner)
    trial.suggest_float("x", 0, 1)
    return trial


def test_a_lease_is_lost_when_it_stands_still_for_the_grace_period(study: optuna.Study) -> None:
    clock = Clock()
    detector = LostTrialDetector(grace_s=600, monotonic=clock)
    renewed, silent = claimed(study), claimed(study)
    for minute in range(10):
        clock.now = 60.0 * minute
        study._storage.set_trial_system_attr(renewed._trial_id, LEASE_ATTR, minute)
        assert detector.find(study) == []
    clock.now = 601.0
    assert [trial.number for trial, _ in detector.find(study)] == [silent.number]
    # Who has just come must first look on: it cannot know how long the lease has stood still.
    assert LostTrialDetector(grace_s=600, monotonic=clock).find(study) == []


def test_time_without_the_storage_does_not_count() -> None:
    storage = RetryingStorage(optuna.storages.InMemoryStorage())
    study = optuna.create_study(storage=storage)
    clock = Clock()
    detector = LostTrialDetector(grace_s=600, monotonic=clock)
    claimed(study)
    assert detector.find(study) == []
    clock.now = 5000.0
    storage.recovered_at = 4990.0
    assert detector.find(study) == []
    clock.now = 5591.0
    assert len(detector.find(study)) == 1


def test_a_trial_that_nobody_claimed_is_lost_and_one_by_ask_and_tell_is_not(
    study: optuna.Study,
) -> None:
    clock = Clock()
    detector = LostTrialDetector(grace_s=600, monotonic=clock)
    unclaimed, by_hand = study.ask(), study.ask()
    by_hand.suggest_float("x", 0, 1)
    detector.find(study)
    clock.now = 601.0
    assert [trial.number for trial, _ in detector.find(study)] == [unclaimed.number]
    by_number = {trial.number: trial for trial in study.trials}
    assert will_end(study, by_number[unclaimed.number])
    assert not will_end(study, by_number[by_hand.number])


def test_a_dead_process_of_this_host_is_seen_at_once(
    study: optuna.Study, dead_process: str
) -> None:
    claimed(study, dead_process), claimed(study, own_name())
    lost = LostTrialDetector(grace_s=600).find(study)
    assert [(trial.number, reason) for trial, reason in lost] == [(0, "its worker died")]


def test_a_lost_trial_is_queued_again_with_its_mixture(tmp_path: Path, dead_process: str) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'mix.db'}")
    study = optuna.create_study(storage=storage)
    lost, alive, elsewhere = study.ask(), study.ask(), study.ask()
    lost.suggest_float("x", 0, 1)
    lost.set_user_attr(WORKER_ATTR, dead_process)
    alive.set_user_attr(WORKER_ATTR, own_name())
    # A container of the same name elsewhere has process ids of its own: nothing is known of it.
    process = dead_process.rpartition(" ")[2]
    elsewhere.set_user_attr(WORKER_ATTR, f"{os.uname().nodename} 0a1b2c3d {process}")
    assert len(reclaim_lost_trials(study)) == 1
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "RUNNING", "RUNNING", "WAITING"]
    assert study.ask().params == lost.params


def test_a_trial_is_reclaimed_once(study: optuna.Study) -> None:
    claimed(study)
    frozen = study.trials[0]
    assert reclaim(study, frozen, "gone")
    assert not reclaim(study, frozen, "gone")
    lost, queued = study.trials
    assert lost.state == TrialState.FAIL and lost.user_attrs[FAILURE_ATTR] == "gone"
    assert queued.state == TrialState.WAITING and queued.params == lost.params


def test_a_mixture_that_kills_its_workers_is_given_up(study: optuna.Study) -> None:
    claimed(study)
    for _ in range(MAX_RETRIES + 3):
        running = study.get_trials(states=(TrialState.RUNNING,))
        if not running:
            break
        reclaim(study, running[0], "gone")
        if study.get_trials(states=(TrialState.WAITING,)):
            study.ask()
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * (MAX_RETRIES + 1)


def test_a_trial_that_was_only_asked_for_is_repeated_if_it_had_a_mixture(
    study: optuna.Study,
) -> None:
    study.ask()
    assert reclaim(study, study.trials[0], "gone")
    assert len(study.trials) == 1
    study.enqueue_trial({"x": 0.25})
    study.ask()
    assert reclaim(study, study.trials[1], "gone")
    assert study.ask().suggest_float("x", 0, 1) == 0.25
