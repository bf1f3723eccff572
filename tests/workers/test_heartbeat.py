"""Heartbeats of running trials: Optuna's, or a lease."""

from __future__ import annotations

import threading
from pathlib import Path

import optuna

from optuna_demix._process_id import own_name
from optuna_demix.attributes import LEASE_ATTR, WORKER_ATTR
from optuna_demix.workers.heartbeat import heartbeats, records_heartbeats


def test_a_heartbeat_is_there_before_the_mark(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=60, grace_period=600
    )
    study = optuna.create_study(storage=storage)
    assert records_heartbeats(study)
    trial = study.ask()
    with heartbeats(study, trial._trial_id, interval_s=60):
        assert study.trials[0].user_attrs[WORKER_ATTR] == own_name()
        assert LEASE_ATTR not in study.trials[0].system_attrs
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session) as session:
        assert models.TrialHeartbeatModel.where_trial_id(trial._trial_id, session) is not None


def test_leases_are_renewed_until_the_trial_ends() -> None:
    study = optuna.create_study()
    assert not records_heartbeats(study)
    trial = study.ask()
    renewed = threading.Event()
    write = study._storage.set_trial_system_attr

    def spy(trial_id: int, key: str, value: int) -> None:
        write(trial_id, key, value)
        if key == LEASE_ATTR and value >= 2:
            renewed.set()

    study._storage.set_trial_system_attr = spy  # type: ignore[method-assign,assignment]
    with heartbeats(study, trial._trial_id, interval_s=0.01):
        assert study.trials[0].user_attrs[WORKER_ATTR] == own_name()
        assert renewed.wait(60)
        name = f"lease of trial {trial._trial_id}"
        assert name in {thread.name for thread in threading.enumerate()}
    assert study.trials[0].system_attrs[LEASE_ATTR] >= 2
    assert name not in {thread.name for thread in threading.enumerate()}
