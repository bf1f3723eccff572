"""Heartbeats of running trials.

Where Optuna records heartbeats, in a database that a worker reaches by itself, it is left to do
so. Elsewhere, through gRPC and in journals, a worker keeps a *lease*: a counter in the trial that
it raises in regular steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna_demix._process_id import own_name
from optuna_demix.attributes import LEASE_ATTR, WORKER_ATTR
from optuna_demix.errors import StorageLostError

if TYPE_CHECKING:
    from optuna.study import Study


def records_heartbeats(study: Study) -> bool:
    """Whether Optuna records heartbeats in the storage of a study."""
    from optuna.storages._heartbeat import is_heartbeat_enabled

    return is_heartbeat_enabled(study._storage)


@contextmanager
def heartbeats(study: Study, trial_id: int, *, interval_s: float) -> Iterator[None]:
    """Mark a trial as evaluated by this process, and keep up its heartbeat within the block.

    The first heartbeat is in the storage before the mark is: a marked trial always has one.

    Args:
        study: The study.
        trial_id: The running trial.
        interval_s: Seconds between two heartbeats.
    """
    storage = study._storage
    if records_heartbeats(study):
        storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        storage.set_trial_user_attr(trial_id, WORKER_ATTR, own_name())
        yield  # Optuna's thread goes on with it
        return
    storage.set_trial_system_attr(trial_id, LEASE_ATTR, 0)
    storage.set_trial_user_attr(trial_id, WORKER_ATTR, own_name())
    ended = threading.Event()

    def renew() -> None:
        count = 0
        while not ended.wait(interval_s):
            count += 1
            try:
                storage.set_trial_system_attr(trial_id, LEASE_ATTR, count)
            except (StorageLostError, RuntimeError):
                return  # lost, or reclaimed: the main thread finds out when it reports

    thread = threading.Thread(target=renew, name=f"lease of trial {trial_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
