"""Reads of all trials that are shared on the way to a proposal, and those that must not be."""

from __future__ import annotations

import threading
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from optuna_demix.attributes import PROPOSAL_ATTR
from optuna_demix.storage.connection import connect
from optuna_demix.storage.retrying import RetryingStorage
from tests.storage import crew


@pytest.fixture(autouse=True)
def _stays_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_demix.storage.snapshot._FRESH_S", 3600.0)


def test_reads_are_shared_until_the_first_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = optuna.storages.InMemoryStorage()
    storage = RetryingStorage(inner)
    study = optuna.create_study(storage=storage)
    study.ask(), study.ask()
    with storage.shared_snapshot():
        assert len(study.get_trials()) == 2
        other = optuna.load_study(study_name=study.study_name, storage=inner).ask()
        assert len(study.get_trials()) == 2  # still what was read first
        assert study.get_trials(states=(TrialState.COMPLETE,)) == []
        first = study.get_trials()[0]
        first.user_attrs["mine"] = 1  # a copy, as Optuna promises
        assert study.get_trials()[0].user_attrs == {}
        storage.set_trial_system_attr(0, "proposal", 1)
        assert [t.number for t in study.get_trials()] == [0, 1, other.number]
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 3
        with monkeypatch.context() as patch:
            patch.setattr("optuna_demix.storage.snapshot._FRESH_S", -1.0)  # it has become old
            assert len(study.get_trials()) == 4
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 4
        storage.refresh_snapshot()
        assert len(study.get_trials()) == 5
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 5
        storage.set_trial_param(0, "x", 0.5, FloatDistribution(0, 1))
        assert len(study.get_trials()) == 6
        inner.create_new_trial(study._study_id)
        assert len(study.get_trials()) == 7
    inner.create_new_trial(study._study_id)
    assert len(study.get_trials()) == 8


def read(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All trials, as a sampler reads them."""
    return study._get_trials(deepcopy=False, use_cache=False)


@pytest.mark.xdist_group("storages")
@pytest.mark.parametrize("new_url", ["sqlite", "postgresql", "grpc", "journal"], indirect=True)
def test_what_finished_before_a_proposal_was_written_is_seen_after_it(new_url: str) -> None:
    """Of two workers that propose at once at least one sees the other's, even finished."""
    storage = connect(new_url)
    study, others = crew.load(storage), crew.load(connect(new_url))
    neighbor, own = others.ask(), study.ask()
    with storage.shared_snapshot():
        assert [trial.state for trial in read(study)] == [TrialState.RUNNING] * 2
        others._storage.set_trial_system_attr(neighbor._trial_id, PROPOSAL_ATTR, {"web": 0.25})
        neighbor.suggest_float("web", 0.25, 0.25)
        others.tell(neighbor, [1.0, 2.0])
        short = others.ask()  # one of which nothing was seen before
        short.suggest_float("web", 0.5, 0.5)
        others.tell(short, [3.0, 4.0])
        assert [trial.state for trial in read(study)] == [TrialState.RUNNING] * 2
        storage.set_trial_system_attr(own._trial_id, PROPOSAL_ATTR, {"web": 0.25})
        finished, running, new = read(study)
    assert running.number == own.number
    assert running.system_attrs[PROPOSAL_ATTR] == {"web": 0.25}
    assert finished.system_attrs[PROPOSAL_ATTR] == finished.params == {"web": 0.25}
    assert [trial.values for trial in (finished, new)] == [[1.0, 2.0], [3.0, 4.0]]


def test_what_another_thread_reads_meanwhile_is_not_taken_for_what_was_read_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It read before the write was done, and hid a neighbor that finished then."""
    inner = optuna.storages.InMemoryStorage()
    storage = RetryingStorage(inner)
    study = optuna.create_study(storage=storage)
    neighbor, own = study.ask(), study.ask()
    write = inner.set_trial_system_attr

    def slow(*args: Any) -> None:
        thread = threading.Thread(target=read, args=(study,))
        thread.start()
        thread.join()
        write(*args)
        inner.set_trial_state_values(neighbor._trial_id, TrialState.COMPLETE, [1.0])

    monkeypatch.setattr(inner, "set_trial_system_attr", slow)
    with storage.shared_snapshot():
        read(study)
        storage.set_trial_system_attr(own._trial_id, PROPOSAL_ATTR, {})
        assert [t.state for t in read(study)] == [TrialState.COMPLETE, TrialState.RUNNING]
