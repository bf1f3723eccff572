"""When the report of a shared study is due, and which of its workers writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import REPORT_ATTR, REPORT_CLAIM_PREFIX
from optuna_demix.storage.claim import Claim
from optuna_demix.storage.unchanged import Unchanged

if TYPE_CHECKING:
    from optuna.study import Study

PATIENCE_S = 900.0
"""A claim of the report that stands unchanged for so long belongs to a dead worker."""

_BUSY = 20
"""A worker writes reports for at most one part in so many of its time."""


class ReportSchedule:
    """When the report of a study is due, as one process sees it.

    Time is told from what this process has seen stand unchanged, and by the clock only where it
    has not been there for long enough: clocks of workers differ.

    Args:
        study: The study.
        interval_s: Least seconds between two reports.
        growth: Least growth of the number of trials between them.
        monotonic: Clock of this process.
        wall: Clock that is written down.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        study: Study,
        *,
        interval_s: float = 300.0,
        growth: float = 0.1,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._study = study
        self._interval_s = interval_s
        self._growth = growth
        self._wall = wall
        self._unchanged = Unchanged(monotonic)
        self._claim = Claim(
            study,
            REPORT_CLAIM_PREFIX,
            patience_s=PATIENCE_S,
            monotonic=monotonic,
            wall=wall,
            sleep=sleep,
        )

    def is_due(self, n_trials: int) -> bool:
        """Whether enough trials and time have passed since the last report.

        Args:
            n_trials: Finished trials of the study.
        """
        last = self._last()
        if last is None:
            return True
        shown = _number(last, "n_trials", 0)
        if n_trials - shown < self._growth * shown - 1e-9:
            return False
        by_clock = self._wall() - _number(last, "at", self._wall())
        waited = max(self._unchanged.seconds(REPORT_ATTR, last), by_clock)
        return waited >= max(self._interval_s, _BUSY * _number(last, "seconds", 0.0))

    def is_newer(self, n_trials: int) -> bool:
        """Whether the last report was made from fewer trials.

        Args:
            n_trials: Finished trials of the study.
        """
        return n_trials > _number(self._last(), "n_trials", 0)

    def claimed(self) -> AbstractContextManager[bool]:
        """Claim the report for a block; yields whether no other process is writing it."""
        return self._claim.held()

    def note(self, n_trials: int, seconds: float) -> None:
        """Write down that the report was written; only within :meth:`claimed`.

        Args:
            n_trials: Finished trials that it shows.
            seconds: Time it took.
        """
        last = {"at": self._wall(), "n_trials": n_trials, "seconds": round(seconds, 3)}
        self._study._storage.set_study_system_attr(self._study._study_id, REPORT_ATTR, last)

    def _last(self) -> Any:
        # Public methods for system attributes are gone from Optuna's studies.
        attrs = self._study._storage.get_study_system_attrs(self._study._study_id)
        return attrs.get(REPORT_ATTR)


def _number(value: Any, key: str, default: float) -> float:
    """A number of a stored mapping, or the default where it is not one of ours."""
    number = value.get(key) if isinstance(value, Mapping) else None
    return float(number) if isinstance(number, (int, float)) else default
