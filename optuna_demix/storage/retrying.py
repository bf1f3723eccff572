"""A storage that outlives the loss of its connection: bounded retries around every call.

Optuna's storages raise when a database restarts or a network is cut, and the evaluation that was
just finished would be lost with its process. This one waits and tries again. Every call may be
repeated: attributes, parameters and heartbeats are overwritten with the same content, and a state
that was already written, its answer lost, is recognized.

It also spares reads. Optuna caches finished trials; every running one is read again with each
read of all trials, and one proposal makes four of them. With many workers that is most of the
database's work, so that they may share a snapshot, see :meth:`RetryingStorage.shared_snapshot`.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled

from optuna_demix._transaction import Parameter, set_trial_params
from optuna_demix.errors import StorageLostError
from optuna_demix.storage.connection_loss import is_connection_loss
from optuna_demix.storage.secrets import Secrets
from optuna_demix.storage.snapshot import Snapshot
from optuna_demix.storage.timing import Timing

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

_T = TypeVar("_T")
_Method = Callable[..., Any]
_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25
"""Seconds before a call is repeated; they double each time."""

_LONGEST_PAUSE_S = 15.0
"""Far below any grace period: heartbeats are back before they are missed."""

_QUIET_S = 2.0
"""A shorter disturbance is not worth a line."""


def _forward(name: str) -> _Method:
    def method(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self.inner, name)
        return self._keep_trying(lambda: call(*args, **kwargs))

    method.__name__ = name
    return method


class RetryingStorage(BaseStorage, BaseHeartbeat):
    """Any Optuna storage, with retries on the loss of its connection.

    Args:
        inner: The storage.
        timing: Its patience is when a call gives up, its grace for how long heartbeats are not
            judged after a disturbance: those of the others could not be written either.
        secrets: Its password.
        give_up: When set, waiting ends at once.
    """

    def __init__(
        self,
        inner: BaseStorage,
        *,
        timing: Timing | None = None,
        secrets: Secrets | None = None,
        give_up: threading.Event | None = None,
    ) -> None:
        self.inner = inner
        self.timing = timing or Timing()
        self.secrets = secrets or Secrets("")
        self.recovered_at = -float("inf")
        """Monotonic time at which the last disturbance was over."""
        self.hides_stale_trials = False
        """Whether Optuna is told of no stale trials: a worker reclaims them, with a reason."""
        self._give_up = give_up or threading.Event()
        self._is_lost = False
        self._snapshot = Snapshot()

    def _keep_trying(self, call: Callable[[], _T]) -> _T:
        start = time.monotonic()
        pause, told = _FIRST_PAUSE_S, False
        while True:
            try:
                result = call()
            except Exception as error:
                if not is_connection_loss(error):
                    raise
                waited = time.monotonic() - start
                line = self.secrets.line(error)
                # Once lost it stays lost: nobody should wait out the patience twice.
                if self._is_lost or waited >= self.timing.patience_s or self._give_up.is_set():
                    self._is_lost = True
                    raise StorageLostError(
                        f"the storage has not answered for {waited:.0f} s ({line}); see that it "
                        "runs and start the worker again, nothing else needs to be done"
                    ) from error
                if waited >= _QUIET_S and not told:
                    told = True
                    _log.warning(
                        "the storage does not answer (%s); trying again for %.0f s",
                        line,
                        self.timing.patience_s,
                    )
                # Random, so that many workers do not come back at the same moment.
                self._give_up.wait(min(pause, self.timing.patience_s) * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self.recovered_at = time.monotonic()
                continue
            self._is_lost = False
            if time.monotonic() - start > self.timing.grace_s / 4:
                # Nothing broke, but nothing got through either.
                self.recovered_at = time.monotonic()
            if told:
                _log.warning("the storage is back after %.0f s", time.monotonic() - start)
            return result

    # Reads of all trials -----------------------------------------------------------------------

    @contextmanager
    def shared_snapshot(self) -> Iterator[None]:
        """Within the block, reads of all trials by this thread within a second are one.

        That is meant for the way to a proposal. A system attribute or a state that is written
        makes the next read a new one: a sampler that has written its proposal sees all that was
        written before. The first parameter ends the sharing.
        """
        self._snapshot.is_shared = True
        try:
            yield
        finally:
            self._snapshot.end()

    def refresh_snapshot(self) -> None:
        """Let the next read of all trials be a new one."""
        self._snapshot.refresh()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """All trials of a study; see :class:`optuna.storages.BaseStorage`."""
        read = self.inner.get_all_trials
        if not self._snapshot.is_shared:
            return self._keep_trying(lambda: read(study_id, deepcopy=deepcopy, states=states))
        found = self._snapshot.trials(
            study_id, lambda: self._keep_trying(lambda: read(study_id, deepcopy=False))
        )
        trials = [trial for trial in found if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    # Writes that a snapshot must show ----------------------------------------------------------

    def set_trial_param(self, *args: Any, **kwargs: Any) -> None:
        """Write a parameter; see :class:`optuna.storages.BaseStorage`."""
        self._snapshot.end()
        self._keep_trying(lambda: self.inner.set_trial_param(*args, **kwargs))

    def set_trial_params(self, trial_id: int, parameters: list[Parameter]) -> None:
        """Write several parameters, in one transaction if the storage can."""
        self._snapshot.end()
        self._keep_trying(lambda: set_trial_params(self.inner, trial_id, parameters))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute; see :class:`optuna.storages.BaseStorage`."""
        self._snapshot.refresh()
        self._keep_trying(lambda: self.inner.set_trial_system_attr(trial_id, key, value))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write state and values of a trial; see :class:`optuna.storages.BaseStorage`."""
        self._snapshot.refresh()
        attempts = 0

        def write() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return self.inner.set_trial_state_values(trial_id, state=state, values=values)
            except UpdateFinishedTrialError:
                # Ours, from an attempt whose answer was lost?
                if attempts > 1 and self._holds(trial_id, state, values):
                    return True
                raise

        return self._keep_trying(write)

    def _holds(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.inner.get_trial(trial_id)
        return trial.state == state and list(trial.values or ()) == list(values or ())

    # Everything else ---------------------------------------------------------------------------

    create_new_study = _forward("create_new_study")
    delete_study = _forward("delete_study")
    set_study_user_attr = _forward("set_study_user_attr")
    set_study_system_attr = _forward("set_study_system_attr")
    get_study_id_from_name = _forward("get_study_id_from_name")
    get_study_name_from_id = _forward("get_study_name_from_id")
    get_study_directions = _forward("get_study_directions")
    get_study_user_attrs = _forward("get_study_user_attrs")
    get_study_system_attrs = _forward("get_study_system_attrs")
    get_all_studies = _forward("get_all_studies")
    create_new_trial = _forward("create_new_trial")
    get_trial_id_from_study_id_trial_number = _forward("get_trial_id_from_study_id_trial_number")
    get_trial_number_from_id = _forward("get_trial_number_from_id")
    get_trial_param = _forward("get_trial_param")
    set_trial_intermediate_value = _forward("set_trial_intermediate_value")
    set_trial_user_attr = _forward("set_trial_user_attr")
    get_trial = _forward("get_trial")
    get_n_trials = _forward("get_n_trials")
    get_best_trial = _forward("get_best_trial")
    get_trial_params = _forward("get_trial_params")
    get_trial_user_attrs = _forward("get_trial_user_attrs")
    get_trial_system_attrs = _forward("get_trial_system_attrs")

    def remove_session(self) -> None:
        """Forward; nothing to repeat."""
        self.inner.remove_session()

    # Heartbeats, where the inner storage has them --------------------------------------------

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a heartbeat. A storage lost for good is for the main thread to notice."""
        assert isinstance(self.inner, BaseHeartbeat)
        beat = self.inner.record_heartbeat
        try:
            self._keep_trying(lambda: beat(trial_id))
        except StorageLostError as error:
            _log.debug("no heartbeat: %s", error)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # Optuna asks before each trial and would fail them without a reason.
        return [] if self.hides_stale_trials else self.stale_trial_ids(study_id)

    def stale_trial_ids(self, study_id: int) -> list[int]:
        """Running trials whose heartbeat has stopped; none within the grace of an outage."""
        assert isinstance(self.inner, BaseHeartbeat)
        stale = self.inner._get_stale_trial_ids
        found = self._keep_trying(lambda: stale(study_id))
        return found if time.monotonic() - self.recovered_at > self.timing.grace_s else []

    def get_heartbeat_interval(self) -> int | None:
        """Seconds between heartbeats, or ``None`` where there are none."""
        if not is_heartbeat_enabled(self.inner):
            return None
        assert isinstance(self.inner, BaseHeartbeat)
        return self.inner.get_heartbeat_interval()

    def get_heartbeat_stale_trial_callback(
        self,
    ) -> Callable[[Study, FrozenTrial], None] | None:
        """What Optuna calls for each trial whose heartbeat has stopped."""
        assert isinstance(self.inner, BaseHeartbeat)
        return self.inner.get_heartbeat_stale_trial_callback()
