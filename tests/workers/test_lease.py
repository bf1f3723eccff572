"""When a running trial counts as lost, by a clock that the test moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.storage.requeue import MAX_RETRIES, requeue
from optuna_demix.workers.lease import Watch, sign_of_life, take_back, will_end
from optuna_demix.workers.process_id import own_name

ELSEWHERE = "elsewhere 0a1b2c3d 1"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def claimed(study: optuna.Study, owner: str = ELSEWHERE) -> optuna.Trial:
    trial = study.ask()
    study._storage.set_trial_system_attr(trial._trial_id, LEASE_ATTR, 0)
    trial.set_user_attr(WORKER_ATTR, owner)
    trial.suggest_float("x", 0, 1)
    return trial


def test_a_lease_is_lost_when_it_stands_still_for_the_grace_period(study: optuna.Study) -> None:
    clock = Clock()
    watch = Watch(grace_s=600, clock=clock)
    renewed, silent = claimed(study), claimed(study)
    for minute in range(10):
        clock.now = 60.0 * minute
        study._storage.set_trial_system_attr(renewed._trial_id, LEASE_ATTR, minute)
        assert watch.lost(study) == []
    clock.now = 601.0
    assert [trial.number for trial, _ in watch.lost(study)] == [silent.number]
    # Who has just come must first look on: it cannot know how long the lease has stood still.
    assert Watch(grace_s=600, clock=clock).lost(study) == []


def test_time_without_the_storage_does_not_count(study: optuna.Study) -> None:
    clock = Clock()
    watch = Watch(grace_s=600, clock=clock)
    claimed(study)
    assert watch.lost(study) == []
    clock.now = 5000.0
    study._storage.back_at = 4990.0  # type: ignore[attr-defined]
    assert watch.lost(study) == []
    clock.now = 5591.0
    assert len(watch.lost(study)) == 1


def test_a_trial_that_nobody_claimed_is_lost_and_one_by_ask_and_tell_is_not(
    study: optuna.Study,
) -> None:
    clock = Clock()
    watch = Watch(grace_s=600, clock=clock)
    unclaimed, by_hand = study.ask(), study.ask()
    by_hand.suggest_float("x", 0, 1)
    watch.lost(study)
    clock.now = 601.0
    assert [trial.number for trial, _ in watch.lost(study)] == [unclaimed.number]
    by_number = {trial.number: trial for trial in study.trials}
    assert will_end(study, by_number[unclaimed.number])
    assert not will_end(study, by_number[by_hand.number])


def test_a_dead_process_of_this_host_is_seen_at_once(study: optuna.Study) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = own_name().rpartition(" ")[0]
    claimed(study, f"{place} {dead.pid}"), claimed(study, own_name())
    lost = Watch(grace_s=600).lost(study)
    assert [(trial.number, reason) for trial, reason in lost] == [(0, "its worker died")]


def test_a_trial_is_taken_back_once_and_leaves_nothing_behind(study: optuna.Study) -> None:
    trial = claimed(study)
    trial.set_user_attr("score:a", 1.0)
    trial.set_user_attr("note", "kept")
    frozen = study.trials[0]
    assert take_back(study, frozen, "gone")
    assert not take_back(study, frozen, "gone")
    lost, queued = study.trials
    assert lost.state == TrialState.FAIL and lost.user_attrs[FAILURE_ATTR] == "gone"
    assert queued.state == TrialState.WAITING and queued.params == lost.params
    assert queued.user_attrs == {"note": "kept"} and LEASE_ATTR not in queued.system_attrs


def test_a_mixture_that_kills_its_workers_is_given_up(study: optuna.Study) -> None:
    claimed(study)
    for _ in range(MAX_RETRIES + 3):
        running = study.get_trials(states=(TrialState.RUNNING,))
        if not running:
            break
        take_back(study, running[0], "gone")
        if study.get_trials(states=(TrialState.WAITING,)):
            study.ask()
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * (MAX_RETRIES + 1)


def test_a_trial_without_parameters_leaves_nothing_to_repeat(study: optuna.Study) -> None:
    study.ask()
    assert take_back(study, study.trials[0], "gone")
    assert len(study.trials) == 1
    study.enqueue_trial({"x": 0.25})
    study.ask()
    assert take_back(study, study.trials[1], "gone")
    assert study.ask().suggest_float("x", 0, 1) == 0.25


def test_a_sign_of_life_is_there_before_the_mark(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=60, grace_period=600
    )
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    with sign_of_life(study, trial._trial_id, interval_s=60):
        assert study.trials[0].user_attrs[WORKER_ATTR] == own_name()
        assert LEASE_ATTR not in study.trials[0].system_attrs
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session) as session:
        assert models.TrialHeartbeatModel.where_trial_id(trial._trial_id, session) is not None


def test_leases_are_renewed_until_the_trial_ends(study: optuna.Study) -> None:
    trial = study.ask()
    import threading

    renewed = threading.Event()
    write = study._storage.set_trial_system_attr

    def spy(trial_id: int, key: str, value: int) -> None:
        write(trial_id, key, value)
        if key == LEASE_ATTR and value >= 2:
            renewed.set()

    study._storage.set_trial_system_attr = spy  # type: ignore[method-assign,assignment]
    with sign_of_life(study, trial._trial_id, interval_s=0.01):
        assert renewed.wait(60)
    count = study.trials[0].system_attrs[LEASE_ATTR]
    assert study.trials[0].system_attrs[LEASE_ATTR] == count


def test_requeue_without_a_mixture_adds_nothing(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    requeue(study, study.trials[0])
    assert len(study.trials) == 1
