"""Retries: what is repeated, what is not, and when a storage counts as lost."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from optuna_demix.errors import StorageLostError
from optuna_demix.storage.retrying import RetryingStorage
from optuna_demix.storage.secrets import Secrets
from optuna_demix.storage.timing import Timing


def connection_loss() -> Exception:
    cause = sqlalchemy.exc.OperationalError("UPDATE trials", {}, sqlite3.OperationalError("gone"))
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


class Flaky:
    """A storage whose calls fail a number of times, before or after they have had their effect."""

    def __init__(self, inner: optuna.storages.BaseStorage) -> None:
        self.inner = inner
        self.failures: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        if not callable(call):
            return call

        def flaky(*args: Any, **kwargs: Any) -> Any:
            planned = self.failures.get(name, [])
            moment = planned.pop(0) if planned else None
            if moment == "before":
                raise connection_loss()
            result = call(*args, **kwargs)
            if moment == "after":
                raise connection_loss()
            return result

        return flaky


@pytest.fixture
def flaky() -> Flaky:
    return Flaky(optuna.storages.InMemoryStorage())


@pytest.fixture
def retrying(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> RetryingStorage:
    monkeypatch.setattr("optuna_demix.storage.retrying._FIRST_PAUSE_S", 1e-4)
    return RetryingStorage(flaky, timing=Timing(patience_s=60.0))  # type: ignore[arg-type]


def test_a_study_runs_through_disturbances(flaky: Flaky, retrying: RetryingStorage) -> None:
    study = optuna.create_study(storage=retrying)
    for name in ("set_trial_param", "set_trial_user_attr", "get_all_trials", "get_trial"):
        flaky.failures[name] = ["before", "after", "before"]
    flaky.failures["set_trial_state_values"] = ["before", "after"]

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("seen", True)
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=3)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    assert all(t.value == t.params["x"] and t.user_attrs["seen"] for t in study.trials)
    assert not any(flaky.failures.values())


def test_a_state_that_another_worker_wrote_is_not_taken_for_ours(
    flaky: Flaky, retrying: RetryingStorage
) -> None:
    study = optuna.create_study(storage=retrying)
    trial = study.ask()
    flaky.failures["set_trial_state_values"] = ["before"]
    flaky.inner.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        retrying.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert study.trials[0].state == TrialState.FAIL


def test_other_errors_are_not_repeated(flaky: Flaky, retrying: RetryingStorage) -> None:
    calls = []

    def broken(*args: Any) -> None:
        calls.append(args)
        raise KeyError("no such study")

    flaky.inner.get_study_name_from_id = broken  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        retrying.get_study_name_from_id(7)
    assert len(calls) == 1


def test_patience_ends_and_is_not_waited_out_twice(flaky: Flaky) -> None:
    secrets = Secrets("postgresql://me:gone@host/mix")
    retrying = RetryingStorage(flaky, timing=Timing(patience_s=0.01), secrets=secrets)  # type: ignore[arg-type]
    flaky.failures["get_all_studies"] = ["before"] * 1000
    with pytest.raises(StorageLostError, match=r"OperationalError\) \*\*\*"):
        retrying.get_all_studies()
    left = len(flaky.failures["get_all_studies"])
    with pytest.raises(StorageLostError):
        retrying.get_all_studies()
    assert len(flaky.failures["get_all_studies"]) == left - 1
    flaky.failures.clear()
    assert retrying.get_all_studies() == []


def test_who_is_told_to_stop_waits_no_longer(flaky: Flaky) -> None:
    urgent = threading.Event()
    urgent.set()
    timing = Timing(patience_s=1e6)
    retrying = RetryingStorage(flaky, timing=timing, give_up=urgent)  # type: ignore[arg-type]
    flaky.failures["get_all_studies"] = ["before"] * 2
    with pytest.raises(StorageLostError):
        retrying.get_all_studies()


def test_heartbeats_are_not_judged_right_after_an_outage(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_demix.storage.retrying._FIRST_PAUSE_S", 1e-4)
    database = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=1, grace_period=1
    )
    flaky = Flaky(database)
    retrying = RetryingStorage(database, timing=Timing(patience_s=60.0))
    monkeypatch.setattr(database, "_get_stale_trial_ids", lambda study_id: [1])
    assert retrying._get_stale_trial_ids(1) == [1]
    flaky.failures["get_all_studies"] = ["before"]
    retrying.inner = flaky  # type: ignore[assignment]
    assert retrying.get_all_studies() == []
    retrying.inner = database
    assert retrying._get_stale_trial_ids(1) == []


def test_a_call_that_hangs_is_a_disturbance(
    flaky: Flaky, retrying: RetryingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 300.0, 300.0])
    monkeypatch.setattr("optuna_demix.storage.retrying.time.monotonic", lambda: next(now))
    retrying.get_all_studies()
    monkeypatch.undo()
    assert retrying.recovered_at == 300.0
