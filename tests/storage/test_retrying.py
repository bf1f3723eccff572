"""Retries: what is repeated, what is not, and when a storage counts as lost."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from optuna_demix.errors import StorageLostError
from optuna_demix.storage.retrying import SteadyStorage, is_connection_loss


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
def steady(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> SteadyStorage:
    monkeypatch.setattr("optuna_demix.storage.retrying._FIRST_PAUSE_S", 1e-4)
    return SteadyStorage(flaky, patience_s=60.0, grace_s=600.0)  # type: ignore[arg-type]


def test_a_study_runs_through_disturbances(flaky: Flaky, steady: SteadyStorage) -> None:
    study = optuna.create_study(storage=steady)
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
    flaky: Flaky, steady: SteadyStorage
) -> None:
    study = optuna.create_study(storage=steady)
    trial = study.ask()
    flaky.failures["set_trial_state_values"] = ["before"]
    flaky.inner.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        steady.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert study.trials[0].state == TrialState.FAIL


def test_other_errors_are_not_repeated(flaky: Flaky, steady: SteadyStorage) -> None:
    calls = []

    def broken(*args: Any) -> None:
        calls.append(args)
        raise KeyError("no such study")

    flaky.inner.get_study_name_from_id = broken  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        steady.get_study_name_from_id(7)
    assert len(calls) == 1


def test_patience_ends_and_is_not_waited_out_twice(flaky: Flaky) -> None:
    steady = SteadyStorage(flaky, patience_s=0.01, grace_s=1.0, describe=lambda error: "gone")  # type: ignore[arg-type]
    flaky.failures["get_all_studies"] = ["before"] * 1000
    with pytest.raises(StorageLostError, match="gone"):
        steady.get_all_studies()
    left = len(flaky.failures["get_all_studies"])
    with pytest.raises(StorageLostError):
        steady.get_all_studies()
    assert len(flaky.failures["get_all_studies"]) == left - 1
    flaky.failures.clear()
    assert steady.get_all_studies() == []


def test_who_is_told_to_stop_waits_no_longer(flaky: Flaky) -> None:
    urgent = threading.Event()
    urgent.set()
    steady = SteadyStorage(flaky, patience_s=1e6, grace_s=1.0, give_up=urgent)  # type: ignore[arg-type]
    flaky.failures["get_all_studies"] = ["before"] * 2
    with pytest.raises(StorageLostError):
        steady.get_all_studies()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (connection_loss(), True),
        (OSError(28, "No space left on device"), True),
        (sqlalchemy.exc.DataError("INSERT", {}, Exception("too long")), False),
        (ValueError("no number"), False),
        (UpdateFinishedTrialError("finished"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert is_connection_loss(error) == passes


def test_heartbeats_are_not_judged_right_after_an_outage(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_demix.storage.retrying._FIRST_PAUSE_S", 1e-4)
    database = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=1, grace_period=1
    )
    flaky = Flaky(database)
    steady = SteadyStorage(database, patience_s=60.0, grace_s=600.0)
    monkeypatch.setattr(database, "_get_stale_trial_ids", lambda study_id: [1])
    assert steady._get_stale_trial_ids(1) == [1]
    flaky.failures["get_all_studies"] = ["before"]
    steady.inner = flaky  # type: ignore[assignment]
    assert steady.get_all_studies() == []
    steady.inner = database
    assert steady._get_stale_trial_ids(1) == []


def test_a_call_that_hangs_is_a_disturbance(
    flaky: Flaky, steady: SteadyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 300.0, 300.0])
    monkeypatch.setattr("optuna_demix.storage.retrying.time.monotonic", lambda: next(now))
    steady.get_all_studies()
    monkeypatch.undo()
    assert steady.back_at == 300.0


def test_looks_are_shared_on_the_way_to_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_demix.storage.retrying._LOOK_S", 3600.0)
    inner = optuna.storages.InMemoryStorage()
    steady = SteadyStorage(inner, patience_s=60.0, grace_s=600.0)
    study = optuna.create_study(storage=steady)
    study.ask(), study.ask()
    with steady.shared_looks():
        assert len(study.get_trials()) == 2
        other = optuna.load_study(study_name=study.study_name, storage=inner).ask()
        assert len(study.get_trials()) == 2  # still what was seen first
        assert study.get_trials(states=(TrialState.COMPLETE,)) == []
        first = study.get_trials()[0]
        first.user_attrs["mine"] = 1  # a copy, as Optuna promises
        assert study.get_trials()[0].user_attrs == {}
        steady.set_trial_system_attr(0, "proposal", 1)
        assert [t.number for t in study.get_trials()] == [0, 1, other.number]
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 3
        monkeypatch.setattr(
            "optuna_demix.storage.retrying._LOOK_S", -1.0
        )  # that look has become old
        assert len(study.get_trials()) == 4
        monkeypatch.setattr("optuna_demix.storage.retrying._LOOK_S", 3600.0)
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 4
        steady.set_trial_param(0, "x", 0.5, optuna.distributions.FloatDistribution(0, 1))
        assert len(study.get_trials()) == 5
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 6
    inner.create_new_trial(study._study_id)
    assert len(study.get_trials()) == 7


def test_one_proposal_takes_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_demix import DemixSampler, MixtureSpace
    from optuna_demix.workers.loop import work

    monkeypatch.setattr("optuna_demix.storage.retrying._LOOK_S", 3600.0)
    inner = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=60)
    steady = SteadyStorage(inner, patience_s=60.0, grace_s=600.0)
    space = MixtureSpace(["a", "b", "c"])
    study = optuna.create_study(storage=steady, sampler=DemixSampler(space, seed=0))
    looks: list[int] = []
    read = inner.get_all_trials

    def counted(*args: Any, **kwargs: Any) -> Any:
        looks.append(1)
        return read(*args, **kwargs)

    monkeypatch.setattr(inner, "get_all_trials", counted)
    asked: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        weight = space.suggest(trial)["a"]
        asked.append(len(looks))
        return weight

    def is_over(study: optuna.Study) -> str | None:
        looks.clear()
        return "enough" if len(asked) == 3 else None

    work(study, objective, is_over=is_over)
    # One to choose with, and one after the choice has been written: has another made the same?
    assert asked == [2, 2, 2]
