"""The progress of training: a bar, or lines where no bar can be shown."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix.training._job import Report

if TYPE_CHECKING:
    from tqdm import tqdm


_LINE_EVERY_S = 30.0  # between two lines of progress where there is no bar


class Progress:
    """One bar of tokens over all models, or lines where no bar can be shown."""

    def __init__(self, total: int, *, shown: bool, report: Report) -> None:
        self._total = total
        self._report = report
        self._shown = shown and total > 0 and sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._name = ""
        self._step, self._steps, self._step_tokens = 0, 0, 0
        self._line_at = 0.0

    def __enter__(self) -> Progress:
        if self._shown:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, unit="tok", unit_scale=True, file=sys.stderr, smoothing=0.05
            )
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        if self._bar is not None:
            self._bar.close()
        return False

    def begin(self, name: str, steps: int, step_tokens: int, done: int) -> None:
        """A model begins, or goes on after ``done`` steps."""
        self._name, self._steps, self._step_tokens = name, steps, step_tokens
        self._step = done
        self._line_at = time.monotonic() + _LINE_EVERY_S
        if self._bar is not None:
            self._bar.set_description(name)
            if done:
                self._bar.initial += done * step_tokens  # not counted in the rate
                self._bar.update(done * step_tokens)
        again = f", resuming after step {done:,}" if done else ""
        self.say(f"{name}: training {steps * step_tokens:,} tokens in {steps:,} steps{again}")

    def advance(self) -> None:
        """A step is done."""
        self._step += 1
        if self._bar is not None:
            self._bar.update(self._step_tokens)

    def loss(self, value: float) -> None:
        """Show the loss of the last steps."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {value:.3f}")
        elif time.monotonic() >= self._line_at and self._step < self._steps:
            self._line_at = time.monotonic() + _LINE_EVERY_S
            self.say(f"{self._name}: step {self._step:,} of {self._steps:,}, loss {value:.4f}")

    def say(self, line: str) -> None:
        """Report a line without breaking the bar."""
        if self._bar is None:
            self._report(line)
            return
        with type(self._bar).external_write_mode(file=sys.stderr):
            self._report(line)


def silent(line: str) -> None:
    """Report nothing: the process of rank 0 reports."""
