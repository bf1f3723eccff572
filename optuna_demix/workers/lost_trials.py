"""Running trials whose workers are gone: how they are told from others, and reclaimed.

Nobody compares the clocks of two hosts. Optuna's heartbeats are judged by the database's clock; a
lease is lost when a worker has seen it stand unchanged for the whole grace period by its own
monotonic clock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optuna_demix._process_id import is_dead_here
from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.storage.requeue import requeue
from optuna_demix.storage.unchanged import Unchanged
from optuna_demix.workers.heartbeat import records_heartbeats
from optuna_demix.workers.reasons import DIED, SILENT

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_log = logging.getLogger(__name__)


class LostTrialDetector:
    """Finds running trials whose workers are gone, as one process sees them.

    Args:
        grace_s: Seconds without a heartbeat after which a trial counts as lost.
        monotonic: Clock of this process.
    """

    def __init__(self, *, grace_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._unchanged = Unchanged(monotonic)
        self._monotonic = monotonic

    def find(self, study: Study) -> list[tuple[FrozenTrial, str]]:
        """Lost trials, each with the reason to write down."""
        from optuna.trial import TrialState

        from optuna_demix.storage.retrying import RetryingStorage

        storage = study._storage
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale: set[int] = set()
        recovered_at = -float("inf")
        if isinstance(storage, RetryingStorage):
            # Heartbeats could not be written while the storage was away.
            recovered_at = storage.recovered_at
            if running and records_heartbeats(study):
                stale = set(storage.stale_trial_ids(study._study_id))
        found = []
        for trial in running:
            heartbeat = _heartbeat_of(trial)
            since = self._unchanged.since(trial._trial_id, heartbeat)
            if is_dead_here(str(trial.user_attrs.get(WORKER_ATTR, ""))):
                found.append((trial, DIED))
            elif trial._trial_id in stale:
                found.append((trial, SILENT))
            elif heartbeat is not None:
                if self._monotonic() - max(since, recovered_at) > self._grace_s:
                    found.append((trial, SILENT))
        self._unchanged.keep({trial._trial_id for trial in running})
        return found

    def reclaim(self, study: Study) -> list[int]:
        """Fail lost trials and queue their mixtures again; returns the numbers of the trials."""
        return [
            trial.number for trial, reason in self.find(study) if reclaim(study, trial, reason)
        ]


def reclaim_lost_trials(study: Study) -> list[int]:
    """Reclaim what can be seen to be lost at once; returns the numbers of the trials.

    That is: trials of dead processes of this host, and those whose heartbeat has stopped.
    """
    return LostTrialDetector(grace_s=float("inf")).reclaim(study)


def reclaim(study: Study, trial: FrozenTrial, reason: str) -> bool:
    """Fail a running trial that is lost, and queue its mixture again.

    Returns:
        Whether it was this call that did so: workers may find the same trial at once.
    """
    from optuna.trial import TrialState

    storage = study._storage
    try:
        storage.set_trial_user_attr(trial._trial_id, FAILURE_ATTR, reason)
        if not storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            return False
    except RuntimeError:
        return False  # another worker was quicker, or it has just finished
    _log.info("trial %d is reclaimed: %s", trial.number, reason)
    requeue(study, trial)
    return True


def is_unclaimed(trial: FrozenTrial) -> bool:
    """Whether a running trial was asked for, and then nothing: its worker may have died there.

    One with parameters and without our mark is somebody else's, by ask and tell.
    """
    if WORKER_ATTR in trial.user_attrs:
        return False
    return not trial.params or "retry_history" in trial.system_attrs


def will_end(study: Study, trial: FrozenTrial) -> bool:
    """Whether a running trial will be told, or reclaimed by a worker of this study."""
    is_recorded = WORKER_ATTR in trial.user_attrs and records_heartbeats(study)
    return is_recorded or _heartbeat_of(trial) is not None


def _heartbeat_of(trial: FrozenTrial) -> Any:
    """What changes as long as a running trial's worker lives; ``None`` where nothing says so."""
    if LEASE_ATTR in trial.system_attrs:
        return "lease", trial.system_attrs[LEASE_ATTR]
    if WORKER_ATTR in trial.user_attrs:
        return None  # Optuna's heartbeat
    return "unclaimed" if is_unclaimed(trial) else None
