"""The progress of a study, which all its workers share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna_demix._progress import Report, Step
from optuna_demix.errors import StorageLostError
from optuna_demix.workers.reasons import failed_by_itself

if TYPE_CHECKING:
    from optuna.study import Study

_REFRESH_S = 2.0
"""Seconds between two reads for the progress, which is not worth more of the storage's time."""


class StudyProgress:
    """Finished trials of a study, of all workers.

    Args:
        study: The study.
        step: Where they are counted; whoever evaluates a trial may :meth:`Step.note` there how far
            it is.
    """

    def __init__(self, study: Study, step: Step) -> None:
        self.step = step
        self._study = study
        self._read_at = -float("inf")
        self._ended, self._failed = 0, 0  # trials in state FAIL, and those that are failures

    def refresh(self, *, now: bool = False) -> None:
        """Read the study, unless that was done a moment ago."""
        if not now and time.monotonic() - self._read_at < _REFRESH_S:
            return
        self._read_at = time.monotonic()
        try:
            finished, pruned = n_finished(self._study), _count(self._study, "PRUNED")
            failed = self._failures()
        except StorageLostError:
            return
        parts = [f"{n:,} {what}" for n, what in ((pruned, "pruned"), (failed, "failed")) if n]
        self.step.note(", ".join(parts), about="trials")
        self.step.update(finished)

    def _failures(self) -> int:
        """Trials that failed; those released or lost are queued again and do not count."""
        from optuna.trial import TrialState

        ended = _count(self._study, "FAIL")
        if ended != self._ended:
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            self._ended, self._failed = ended, sum(map(failed_by_itself, trials))
        return self._failed


@contextmanager
def study_progress(
    study: Study, n_trials: int | None, report: Report
) -> Iterator[StudyProgress | None]:
    """Show a study's finished trials for as long as the block lasts.

    Args:
        study: The study.
        n_trials: Trials it is to have.
        report: Where they are shown; yields ``None`` where nobody sees them.
    """
    if report.is_silent:
        yield None
        return
    done = n_finished(study)
    with report.step(
        study.study_name, unit="trial", total=n_trials, done=done, announced=False
    ) as step:
        progress = StudyProgress(study, step)
        yield progress
        progress.refresh(now=True)


def n_finished(study: Study) -> int:
    """Trials of a study that are complete or pruned."""
    return _count(study, "COMPLETE") + _count(study, "PRUNED")


def _count(study: Study, state: str) -> int:
    from optuna.trial import TrialState

    return study._storage.get_n_trials(study._study_id, TrialState[state])
