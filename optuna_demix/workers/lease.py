"""Signs of life of running trials, and what happens to a trial whose worker has gone silent.

Where Optuna keeps heartbeats (a database that a worker reaches by itself), these are the signs of
life. Elsewhere (gRPC proxy, journals) a worker keeps a *lease*: a counter in the trial that it
raises in regular steps. Watchers compare no clocks: a lease is lost when the watcher has seen it
stand still for the whole grace period by its own monotonic clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.errors import StorageLostError
from optuna_demix.storage.requeue import requeue
from optuna_demix.workers.process_id import is_dead_here, own_name

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_log = logging.getLogger(__name__)


def keeps_heartbeats(study: Study) -> bool:
    """Whether Optuna records heartbeats in the storage of a study."""
    from optuna.storages._heartbeat import is_heartbeat_enabled

    return is_heartbeat_enabled(study._storage)


@contextmanager
def sign_of_life(study: Study, trial_id: int, *, interval_s: float) -> Iterator[None]:
    """Mark a trial as evaluated by this process, and keep it marked as alive within the block.

    The sign of life is in the storage before the mark is: a marked trial always has one.

    Args:
        study: The study.
        trial_id: The running trial.
        interval_s: Seconds between two signs.
    """
    storage = study._storage
    if keeps_heartbeats(study):
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
                return  # lost, or taken over: the main thread finds out when it reports

    thread = threading.Thread(target=renew, name=f"lease of trial {trial_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Watch:
    """Watches the running trials of a study and finds those whose workers are gone.

    Args:
        grace_s: Seconds without a sign of life after which a trial counts as lost.
        clock: Monotonic time in seconds.
    """

    def __init__(self, *, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._seen: dict[int, tuple[Any, float]] = {}  # trial id → sign, since when

    def lost(self, study: Study) -> list[tuple[FrozenTrial, str]]:
        """Lost trials, each with the reason to write down."""
        from optuna.trial import TrialState

        from optuna_demix.storage.retrying import SteadyStorage

        storage: Any = study._storage
        now = self._clock()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale: set[int] = set()
        if running and isinstance(storage, SteadyStorage) and keeps_heartbeats(study):
            stale = set(storage.stale_trial_ids(study._study_id))
        # Signs could not be written while the storage was away, so that time does not count.
        back_at = getattr(storage, "back_at", -float("inf"))
        found = []
        seen = {}
        for trial in running:
            silent = "no sign of life of its worker for the grace period"
            sign = _sign(trial)
            before, since = self._seen.get(trial._trial_id, (None, now))
            if sign != before:
                since = now
            seen[trial._trial_id] = (sign, since)
            if is_dead_here(trial):
                found.append((trial, "its worker died"))
            elif trial._trial_id in stale:
                found.append((trial, silent))
            elif sign is not None and now - max(since, back_at) > self._grace_s:
                found.append((trial, silent))
        self._seen = seen
        return found

    def take_back(self, study: Study) -> int:
        """Fail lost trials and queue their mixtures again; returns the number of trials."""
        return sum(take_back(study, trial, reason) for trial, reason in self.lost(study))


def take_back_lost_trials(study: Study) -> int:
    """Take back what can be seen to be lost at once; returns the number of trials.

    That is: trials of dead processes of this host, and those whose heartbeat has stopped.
    """
    return Watch(grace_s=float("inf")).take_back(study)


def _sign(trial: FrozenTrial) -> Any:
    """What changes as long as a running trial's worker lives; ``None`` where nothing says so."""
    if LEASE_ATTR in trial.system_attrs:
        return "lease", trial.system_attrs[LEASE_ATTR]
    if WORKER_ATTR in trial.user_attrs:
        return None  # Optuna's heartbeat
    return "unclaimed" if is_unclaimed(trial) else None


def is_unclaimed(trial: FrozenTrial) -> bool:
    """Whether a running trial was asked for, and then nothing: its worker may have died there.

    One with parameters and without our mark is somebody else's, by ask and tell.
    """
    if WORKER_ATTR in trial.user_attrs:
        return False
    return not trial.params or "retry_history" in trial.system_attrs


def will_end(study: Study, trial: FrozenTrial) -> bool:
    """Whether a running trial will end or be taken back by watchers of this study's storage."""
    watched = WORKER_ATTR in trial.user_attrs and keeps_heartbeats(study)
    return watched or _sign(trial) is not None


def take_back(study: Study, trial: FrozenTrial, reason: str) -> bool:
    """Fail a running trial that is lost, and queue its mixture again.

    Returns:
        Whether it was this call that took it: workers may find the same trial at once.
    """
    from optuna.trial import TrialState

    storage = study._storage
    try:
        storage.set_trial_user_attr(trial._trial_id, FAILURE_ATTR, reason)
        if not storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            return False
    except RuntimeError:
        return False  # another worker was quicker, or it has just finished
    _log.info("trial %d is taken back: %s", trial.number, reason)
    requeue(study, trial)
    return True
