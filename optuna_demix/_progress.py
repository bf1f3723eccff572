"""What a long operation says while it runs: bars on a terminal, lines elsewhere.

A :class:`Report` is what operations are given to speak to, a :class:`Step` is one long piece of
work within. A log gets a line when a step begins, one now and then, and one when it has taken
long; never a bar, which would fill it with carriage returns.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna_demix._wording import counted, duration

if TYPE_CHECKING:
    from tqdm import tqdm

_TICK_S = 1.0
"""Seconds between two drawings of a bar, so that its clock runs while nothing is counted."""

_LINE_EVERY_S = 30.0
"""Seconds between two lines of a step, at first."""

_LINE_EVERY_AT_MOST_S = 300.0
_LINES_OF_A_STEP = 20  # from which on lines become rarer

_LONG_S = 5.0
"""Seconds from which on the end of a step is worth a line."""


class Report:
    """Where an operation says what it does.

    Args:
        say: Called with each line; ``None`` for nobody.
        bars: Show progress as bars where stderr is a terminal; elsewhere it is lines.
    """

    def __init__(self, say: Callable[[str], None] | None = None, *, bars: bool = False) -> None:
        self._say = say
        self._bars = bars

    @classmethod
    def of(cls, report: Callable[[str], None] | None) -> Report:
        """A report that speaks to a function, or the report that was given."""
        return report if isinstance(report, Report) else cls(report)

    def __call__(self, line: str) -> None:
        """Say a line, beside whatever bar is shown."""
        if self._say is None:
            return
        if not self.shows_bars:
            self._say(line)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            self._say(line)

    @property
    def is_silent(self) -> bool:
        """Whether nobody sees anything."""
        return self._say is None and not self.shows_bars

    @property
    def shows_bars(self) -> bool:
        """Whether progress is shown as bars."""
        return self._bars and sys.stderr.isatty()

    @contextmanager
    def step(
        self,
        what: str,
        *,
        unit: str = "",
        total: int | None = None,
        done: int = 0,
        announced: bool = True,
    ) -> Iterator[Step]:
        """A long piece of work, for as long as the block lasts.

        Args:
            what: What is done.
            unit: What is counted, in the singular; empty where nothing is.
            total: How many there are, where that is known.
            done: How many were done before.
            announced: Say in a log that it begins.
        """
        step = Step(what, self, unit=unit, total=total, done=done)
        step.begin(announced=announced)
        try:
            yield step
        except BaseException:
            step.end(complete=False)
            raise
        step.end(complete=True)


class Step:
    """One long piece of work; :meth:`Report.step` makes it.

    Args:
        what: What is done.
        report: Where it is shown.
        unit: What is counted, in the singular.
        total: How many there are, if that is known.
        done: How many were done before.
    """

    def __init__(
        self, what: str, report: Report, *, unit: str, total: int | None, done: int
    ) -> None:
        self._what, self._unit = what, unit
        self._report = report
        self._total, self._first, self._done = total, done, done
        self._notes: dict[str, str] = {}
        self._began = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)

    def update(self, done: int, total: int | None = None) -> None:
        """So many are done, of so many."""
        self._total = self._total if total is None else total
        self._done = done
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.update(done - self._bar.n)

    def advance(self, n: int = 1) -> None:
        """So many more are done."""
        self.update(self._done + n)

    def skip(self, n: int) -> None:
        """So many more need not be done: they do not count for the rate."""
        self._first += n
        if self._bar is not None:
            self._bar.initial += n
        self.advance(n)

    def note(self, text: str, *, about: str = "") -> None:
        """Show a text beside the count, in place of the last one about the same thing."""
        self._notes[about] = text
        if self._bar is not None:
            self._bar.set_postfix_str(self._noted(), refresh=False)

    def rename(self, what: str) -> None:
        """Go on with something else under the same count."""
        self._what = what
        if self._bar is not None:
            self._bar.set_description_str(what, refresh=False)

    def begin(self, *, announced: bool) -> None:
        """Show that the work begins."""
        if self._report.is_silent:
            return
        if self._report.shows_bars:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                desc=self._what,
                unit=self._unit,
                unit_scale=self._total is not None and self._total >= 100_000,
                file=sys.stderr,
                dynamic_ncols=True,
                smoothing=0.05,
                bar_format=None if self._unit else "{desc}: {elapsed}{postfix}",
            )
        elif announced:
            self._report(self._what)
        self._ticker.start()

    def end(self, *, complete: bool) -> None:
        """Show that the work has ended."""
        if self._report.is_silent:
            return
        self._ended.set()
        self._ticker.join()
        if self._bar is not None:
            self._bar.close()
        elif complete and self._elapsed >= _LONG_S:
            many = f"{counted(self._done, self._unit)} in " if self._unit else "done in "
            self._report(f"{self._what}: {many}{duration(self._elapsed)}")

    def _noted(self) -> str:
        return ", ".join(filter(None, self._notes.values()))

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tick(self) -> None:
        while not self._ended.wait(self._pause()):
            if self._bar is not None:
                self._bar.refresh()
            else:
                self._report(f"{self._what}: {self.state()}")

    def _pause(self) -> float:
        if self._bar is not None:
            return _TICK_S
        rarer = min(self._elapsed / _LINES_OF_A_STEP, _LINE_EVERY_AT_MOST_S)
        return max(_LINE_EVERY_S, rarer)

    def state(self) -> str:
        """How far the work is, in words."""
        parts = []
        if self._unit and self._total is not None:
            parts.append(f"{self._done:,} of {counted(self._total, self._unit)}")
        elif self._unit:
            parts.append(counted(self._done, self._unit))
        if self._noted():
            parts.append(self._noted())
        parts.append(duration(self._elapsed))
        made = self._done - self._first
        if self._total is not None and 0 < made and self._done < self._total:
            left = self._elapsed * (self._total - self._done) / made
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)
