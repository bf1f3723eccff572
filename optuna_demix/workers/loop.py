"""The trial loop of one worker: ask, evaluate, tell, and stop at the right moment."""

from __future__ import annotations

import gc
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna_demix._process_id import parent_is_gone
from optuna_demix._stop import StopRequest
from optuna_demix.attributes import FAILURE_ATTR
from optuna_demix.errors import StorageLostError
from optuna_demix.storage.requeue import requeue
from optuna_demix.storage.secrets import Secrets
from optuna_demix.storage.timing import Timing
from optuna_demix.workers.heartbeat import heartbeats
from optuna_demix.workers.lost_trials import LostTrialDetector, is_unclaimed, will_end
from optuna_demix.workers.reasons import RELEASED, SURPLUS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState

_log = logging.getLogger(__name__)

COMPLETED = "trials completed"
"""What the last line of every worker says, see :class:`WorkerReport`."""

_MAX_FAILURES = 3
"""Failures in a row after which something is wrong here, not with the mixtures."""

_LONGEST_WAIT_S = 10.0
"""Seconds between two reads of the last running trials of others."""

_NEAR = 64
"""Trials before the end of the study from which on trials are counted before each one."""

_CHECKS = 4
"""How often lost trials are looked for, for each heartbeat."""


@dataclass(frozen=True)
class WorkerReport:
    """What one worker has done.

    Attributes:
        complete: Trials it completed.
        pruned: Trials that lost their race or were screened out.
        failed: Trials that failed on it.
        released: Trials that it gave back when it was told to stop at once; they are queued again.
        stopped: Why it stopped, in words.
        healthy: Whether it stopped of its own accord and not for failures.
        signum: The signal that asked it to stop, or 0.
    """

    complete: int
    pruned: int
    failed: int
    stopped: str
    healthy: bool
    signum: int = 0
    released: int = 0

    def __str__(self) -> str:
        """What it has done, in one line."""
        counts = [f"{self.complete} {COMPLETED}"]
        counts += [f"{self.pruned} dropped early"] if self.pruned else []
        counts.append(f"{self.failed} failed")
        counts += [f"{self.released} given back"] if self.released else []
        return f"{', '.join(counts)}; {self.stopped}"


class _Surplus(Exception):
    """One trial more than was asked for."""


class _Released(Exception):
    """The worker was told to stop before its trial was done."""


def work(
    study: Study,
    objective: Callable[[Trial], Any],
    *,
    n_trials: int | None = None,
    deadline: float | None = None,
    is_over: Callable[[Study], str | None] | None = None,
    stop: StopRequest | None = None,
    refresh: Callable[[], None] | None = None,
) -> WorkerReport:
    """Evaluate trials of a study until there is a reason to stop.

    The study gets exactly ``n_trials`` complete or pruned trials, however many workers it has.
    At the end a worker waits for the running trials of others, so that one which is lost then is
    still repeated.

    Args:
        study: The study, with its sampler, in a storage opened by
            :func:`~optuna_demix.storage.connection.connect`, which knows the timing of heartbeats
            and what to keep out of the reasons of failed trials. Any other storage of Optuna does
            as well, with the default timing and without retries.
        objective: Called with each trial.
        n_trials: Trials the *study* is to have; ``None`` for no end.
        deadline: Monotonic time after which no trial is started.
        is_over: Another reason to stop, asked before each trial; ``None`` from it goes on.
        stop: The request to stop.
        refresh: Called after each trial and while waiting.
    """
    worker = _Worker(study, objective, n_trials, stop or StopRequest())
    with worker.stop.serving():
        return worker.run(deadline, is_over or (lambda study: None), refresh or (lambda: None))


class _Worker:
    """One worker in its loop."""

    def __init__(
        self,
        study: Study,
        objective: Callable[[Trial], Any],
        n_trials: int | None,
        stop: StopRequest,
    ) -> None:
        from optuna_demix.storage.retrying import RetryingStorage

        storage = study._storage
        self.retrying = storage if isinstance(storage, RetryingStorage) else None
        self.timing, self.secrets = Timing(), Secrets("")
        if self.retrying is not None:
            self.retrying.hides_stale_trials = True
            self.timing, self.secrets = self.retrying.timing, self.retrying.secrets
        self.study = study
        self.objective = objective
        self.n_trials = n_trials
        self.stop = stop
        self.detector = LostTrialDetector(grace_s=self.timing.grace_s)
        self.outcomes: list[TrialState] = []
        self.n_released = 0
        self.reason = ""  # of the last failure
        self.current: Trial | None = None
        self._check_every_s = self.timing.heartbeat_s / _CHECKS
        self._checked_at = -float("inf")

    def run(
        self,
        deadline: float | None,
        is_over: Callable[[Study], str | None],
        refresh: Callable[[], None],
    ) -> WorkerReport:
        waits = 0
        while True:
            try:
                self._reclaim_lost_trials(now=waits > 0)
                verdict = self._why_stop(deadline) or is_over(self.study)
                if verdict is not None:
                    return self._report(verdict)
                if self._is_full():
                    if not self._has_to_wait():
                        return self._report(f"the study has its {self.n_trials} trials")
                    if waits == 0:
                        _log.info("waiting for the last trials of other workers")
                    longest = min(_LONGEST_WAIT_S, self._check_every_s, 0.1 * 2**waits)
                    self.stop.event.wait(random.uniform(0.5, 1.0) * longest)
                    waits += 1
                    refresh()
                    continue
                waits = 0
                self._one_trial(refresh)
            except StorageLostError as error:
                return self._report(str(error), healthy=False)
            last = self.outcomes[-_MAX_FAILURES:]
            if len(last) == _MAX_FAILURES and all(state.name == "FAIL" for state in last):
                return self._report(
                    f"{_MAX_FAILURES} trials in a row failed: {self.reason}", healthy=False
                )

    # One trial -------------------------------------------------------------------------------

    def _one_trial(self, refresh: Callable[[], None]) -> None:
        before = self.current
        told: list[FrozenTrial] = []

        def after(study: Study, trial: FrozenTrial) -> None:
            told.append(trial)

        try:
            with self._shared_snapshot(), _no_complaint_of(_Released, _Surplus):
                self.study.optimize(
                    self._evaluate, n_trials=1, catch=(Exception,), callbacks=[after]
                )
        except StorageLostError:
            raise
        except Exception:
            if told or self.current is before or not self._was_reclaimed():
                raise
            assert self.current is not None
            _log.warning(
                "trial %d was reclaimed while this worker was out of reach; its result is "
                "left to the other worker",
                self.current.number,
            )
            return
        trial = told[0]
        reason = str(trial.user_attrs.get(FAILURE_ATTR, ""))
        if reason == RELEASED:
            requeue(self.study, trial)
            self.n_released += 1
        elif reason != SURPLUS:
            self.outcomes.append(trial.state)
            self.reason = reason or self.reason
        refresh()

    def _evaluate(self, trial: Trial) -> Any:
        self.current = trial
        if self._is_surplus(trial.number):
            # Two workers asked for the last trial at the same moment.
            trial.set_user_attr(FAILURE_ATTR, SURPLUS)
            raise _Surplus
        from optuna import TrialPruned

        with heartbeats(self.study, trial._trial_id, interval_s=self.timing.heartbeat_s):
            try:
                with self.stop.trial():
                    return self.objective(trial)
            except KeyboardInterrupt:
                trial.set_user_attr(FAILURE_ATTR, RELEASED)
                raise _Released from None
            except (StorageLostError, TrialPruned):
                raise
            except Exception as error:
                line = self.secrets.mask(str(error).strip().split("\n")[0])
                trial.set_user_attr(FAILURE_ATTR, f"{type(error).__name__}: {line}"[:500])
                _free_memory()
                raise

    def _shared_snapshot(self) -> AbstractContextManager[None]:
        return nullcontext() if self.retrying is None else self.retrying.shared_snapshot()

    def _was_reclaimed(self) -> bool:
        """Whether somebody else has failed the current trial."""
        if self.current is None:
            return False
        trial = self.study._storage.get_trial(self.current._trial_id)
        return trial.state.name == "FAIL"

    # Reasons to stop -------------------------------------------------------------------------

    def _why_stop(self, deadline: float | None) -> str | None:
        if self.stop.event.is_set():
            return "asked to stop"
        if deadline is not None and time.monotonic() >= deadline:
            return "the time is over"
        if parent_is_gone():
            return "the process that started it is gone"
        return None

    def _is_full(self) -> bool:
        """Whether all trials are done or being worked on; not asked while that is far off.

        To count them all running ones are read.
        """
        if self.n_trials is None:
            return False
        last = -1 if self.current is None else self.current.number
        margin = max(_NEAR, self.n_trials // 8)
        if self.current is not None and last + margin < self.n_trials:
            return False
        return len(self._taken()) >= self.n_trials

    def _is_surplus(self, number: int) -> bool:
        """Whether the study has its trials without this one: so many lower ones are taken."""
        if self.n_trials is None or number < self.n_trials:
            return False
        if self.retrying is not None:
            self.retrying.refresh_snapshot()  # so that it holds this trial
        return sum(trial.number < number for trial in self._taken()) >= self.n_trials

    def _taken(self) -> list[FrozenTrial]:
        """Trials that are done or being worked on."""
        from optuna.trial import TrialState

        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return self.study.get_trials(deepcopy=False, states=states)

    def _has_to_wait(self) -> bool:
        """Whether a trial that is still running may have to be repeated by this worker."""
        assert self.n_trials is not None
        trials = self._taken()
        running = [trial for trial in trials if trial.state.name == "RUNNING"]
        if len(trials) - len(running) >= self.n_trials:
            # Nothing to repeat; only what nobody works on is seen to its end.
            return any(is_unclaimed(trial) for trial in running)
        return any(will_end(self.study, trial) for trial in running)

    def _reclaim_lost_trials(self, *, now: bool) -> None:
        """Reclaim lost trials, often enough that none is missed for long."""
        if now or time.monotonic() - self._checked_at >= self._check_every_s:
            self.detector.reclaim(self.study)
            self._checked_at = time.monotonic()

    def _report(self, stopped: str, *, healthy: bool = True) -> WorkerReport:
        complete = sum(state.name == "COMPLETE" for state in self.outcomes)
        pruned = sum(state.name == "PRUNED" for state in self.outcomes)
        failed = len(self.outcomes) - complete - pruned
        return WorkerReport(
            complete, pruned, failed, stopped, healthy, self.stop.signum, self.n_released
        )


@contextmanager
def _no_complaint_of(*kinds: type[Exception]) -> Iterator[None]:
    """Keep Optuna from logging, with a traceback, that a trial of ours ended by such an error."""
    own, gone = threading.get_ident(), False

    def keep(record: logging.LogRecord) -> bool:
        nonlocal gone
        if record.thread != own:
            return True
        error = record.exc_info[0] if record.exc_info else None
        gone = gone or (error is not None and issubclass(error, kinds))
        return not gone  # nor the line after, which says that there is no value

    logger = logging.getLogger("optuna.study._optimize")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _free_memory() -> None:
    """Free what a failed evaluation held: out of memory must not repeat itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            pass  # the device is gone; the next trial will say so
