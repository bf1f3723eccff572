"""``Reporter``: predictions and reports that a worker writes for the dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optuna_demix.attributes import COMPOSITE_ATTR, VIOLATION_ATTR
from optuna_demix.report._schedule import ReportSchedule
from optuna_demix.search._predictions import composite_of, prediction_attrs, violation

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.proposals.fit import Fit

MIN_TRIALS = 10
"""Finished trials before the first report."""

_CHECK_S = 15.0
"""Seconds between two checks of the storage whether a report is due."""


@runtime_checkable
class Foresight(Protocol):
    """A sampler that tells which fit its last proposal came from."""

    def fit_of(self, study: Study) -> Fit | None:
        """The fit, or ``None`` if the last proposal was drawn without one."""


class Reporter:
    """Writes predictions to trials, and now and then the report to the study.

    A report costs a fit, seconds to minutes between two trials of one worker; see
    :class:`~optuna_demix.report._schedule.ReportSchedule` for who writes it and when. Nothing
    that goes wrong here ends a worker or a trial.

    Args:
        study: The study, with its sampler.
        space: Its mixture.
        write: Makes the report and writes it to the study; ``None``: only trials are annotated.
        schedule: When a report is due, and who writes it.
        say: Called with a line for the user when a report could not be written.
        monotonic: Clock.
    """

    def __init__(
        self,
        study: Study,
        space: MixtureSpace,
        write: Callable[[], object] | None,
        *,
        schedule: ReportSchedule,
        say: Callable[[str], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._space = space
        self._write = write
        self._schedule = schedule
        self._say = say or (lambda line: None)
        self._monotonic = monotonic
        self._next_check = -float("inf")
        self._complaints: set[str] = set()

    def watching(self, objective: Callable[[Trial], Any]) -> Callable[[Trial], Any]:
        """The objective, which writes to each trial what the surrogate expected of it.

        A finished trial takes no attributes, so that this happens before it is told.
        """

        def watched(trial: Trial) -> Any:
            values = objective(trial)
            self._guarded(lambda: self.annotate(trial, values))
            return values

        return watched

    def annotate(self, trial: Trial, values: Any) -> None:
        """Write a trial's prediction and composite, and by how much it misses the constraints.

        Args:
            trial: The trial, before it is told.
            values: What its objective returned.
        """
        missed = violation(self._space, trial.params)
        if missed is not None:
            trial.set_user_attr(VIOLATION_ATTR, missed)
        sampler = self._study.sampler
        fit = sampler.fit_of(self._study) if isinstance(sampler, Foresight) else None
        composite = composite_of(self._study, fit, values)
        if composite is not None:
            trial.set_user_attr(COMPOSITE_ATTR, composite)
        if fit is None:
            return
        from optuna_demix.search._analysis import objective_names_of

        names = objective_names_of(self._study)
        for key, value in prediction_attrs(fit, trial.params, names).items():
            trial.set_user_attr(key, value)

    def told(self) -> None:
        """Call after each trial: writes the report if one is due and nobody else does."""
        if self._write is None or self._monotonic() < self._next_check:
            return
        self._guarded(lambda: self._report(self._schedule.is_due))
        self._next_check = self._monotonic() + _CHECK_S

    def then(self, refresh: Callable[[], None]) -> Callable[[], None]:
        """A function for after each trial: first ``refresh``, then :meth:`told`."""

        def after() -> None:
            refresh()
            self.told()

        return after

    def finish(self) -> None:
        """Call when the study has its trials: writes the last report if it shows more.

        A worker that finds another one writing does nothing: the other one checks for new trials
        again when it is done.
        """
        while self._guarded(lambda: self._report(self._schedule.is_newer)):
            pass

    def _report(self, is_due: Callable[[int], bool]) -> bool:
        """Write the report if it is due; returns whether it was written."""
        n_trials = self._n_trials()
        if self._write is None or n_trials < MIN_TRIALS or not is_due(n_trials):
            return False
        with self._schedule.claimed() as is_ours:
            n_trials = self._n_trials()
            if not is_ours or not is_due(n_trials):  # another worker may just have written it
                return False
            started = self._monotonic()
            self._write()
            self._schedule.note(n_trials, self._monotonic() - started)
        return True

    def _n_trials(self) -> int:
        from optuna.trial import TrialState

        return self._study._storage.get_n_trials(self._study._study_id, TrialState.COMPLETE)

    def _guarded(self, action: Callable[[], Any]) -> bool:
        """Do something that must not end the worker; says what went wrong, each thing once."""
        try:
            return bool(action())
        except Exception as error:
            line = str(error).strip().split("\n")[0]
            complaint = f"dashboard not updated ({type(error).__name__}: {line})"
            if complaint not in self._complaints:
                self._complaints.add(complaint)
                self._say(complaint)
            return False
