"""Whose turn it is to write the report of a shared study, and whether one is due.

Optuna's storages have no compare-and-set, but each write is seen by every read that follows it.
So a claimant writes a key of its own and then reads all: of two that overlap, at least one reads
after both have written and sees the other. Only who sees nobody goes on. Among those who ask at
the same moment the one with the least key stays until the others have withdrawn or one of them
has got it; the others withdraw at once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna_demix.attributes import CLAIM_PREFIX, LAST_ATTR

if TYPE_CHECKING:
    from optuna.study import Study

PATIENCE_S = 900.0  # a claim that stands unchanged for so long belongs to a dead worker
_DEAD_S = 3600.0  # the same by the clocks of two hosts, which may differ
_LOOKS, _PAUSE_S = 40, 0.05  # for how long others may take to withdraw
_BUSY = 20  # a worker writes reports for at most one part in so many of its time


class Turn:
    """One process' view of who writes the report, and when.

    Time is told from what this process has seen stand unchanged, and by the clock only where it
    has not looked for long enough: clocks of workers differ.

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
        self._monotonic = monotonic
        self._wall = wall
        self._sleep = sleep
        self._key = f"{CLAIM_PREFIX}{uuid.uuid4().hex}"
        self._seen: dict[str, tuple[Any, float]] = {}  # key: its value, and since when

    def is_due(self, n_trials: int) -> bool:
        """Whether enough trials and time have passed since the last report.

        Args:
            n_trials: Finished trials of the study.
        """
        return self._is_due(self._read(), n_trials)

    def is_newer(self, n_trials: int) -> bool:
        """Whether the last report was made from fewer trials."""
        return n_trials > _number(self._read().get(LAST_ATTR), "n_trials", 0)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Claim the report for the block; yields whether it was to be had."""
        won = self._claim()
        try:
            yield won
        finally:
            if won:
                self._write(self._key, None)

    def note(self, n_trials: int, seconds: float) -> None:
        """Write down that the report was written; only within :meth:`taken`.

        Args:
            n_trials: Finished trials that it shows.
            seconds: Time it took.
        """
        last = {"at": self._wall(), "n_trials": n_trials, "seconds": round(seconds, 3)}
        self._write(LAST_ATTR, last)

    def _claim(self) -> bool:
        if self._rivals(self._read()):
            return False
        # An id for each claim: others tell a standing one from a new one by it.
        claim = {"id": uuid.uuid4().hex, "at": self._wall(), "held": False}
        self._write(self._key, claim)
        for _ in range(_LOOKS):
            rivals = self._rivals(self._read())
            if not rivals:
                self._write(self._key, {**claim, "held": True})
                return True
            if any(key < self._key or _is_held(value) for key, value in rivals.items()):
                break
            self._sleep(_PAUSE_S)
        self._write(self._key, None)
        return False

    def _rivals(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Claims of others that may be alive."""
        return {
            key: value
            for key, value in attrs.items()
            if key.startswith(CLAIM_PREFIX)
            and key != self._key
            and value is not None
            and self._stood(key, value) < PATIENCE_S
            and self._wall() - _number(value, "at", self._wall()) < _DEAD_S
        }

    def _is_due(self, attrs: Mapping[str, Any], n_trials: int) -> bool:
        last = attrs.get(LAST_ATTR)
        if last is None:
            return True
        grown = n_trials - _number(last, "n_trials", 0)
        if grown < self._growth * _number(last, "n_trials", 0) - 1e-9:
            return False
        by_clock = self._wall() - _number(last, "at", self._wall())
        waited = max(self._stood(LAST_ATTR, last), by_clock)
        return waited >= max(self._interval_s, _BUSY * _number(last, "seconds", 0.0))

    def _stood(self, key: str, value: Any) -> float:
        """Seconds for which this process has seen a value unchanged."""
        now = self._monotonic()
        known, since = self._seen.get(key, (None, now))
        if known != value:
            since = now
        self._seen[key] = (value, since)
        return now - since

    def _read(self) -> dict[str, Any]:
        # Public methods for system attributes are gone from Optuna's studies.
        return self._study._storage.get_study_system_attrs(self._study._study_id)

    def _write(self, key: str, value: Any) -> None:
        self._study._storage.set_study_system_attr(self._study._study_id, key, value)


def _is_held(claim: Any) -> bool:
    return isinstance(claim, Mapping) and bool(claim.get("held"))


def _number(value: Any, key: str, default: float) -> float:
    """A number of a stored mapping, or the default where it is not one of ours."""
    number = value.get(key) if isinstance(value, Mapping) else None
    return float(number) if isinstance(number, (int, float)) else default
