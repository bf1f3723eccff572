"""SIGINT and SIGTERM during training: noted at once, obeyed after the step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Literal

from optuna_demix._process_id import parent_is_gone
from optuna_demix.training._results import TrainingInterrupted


class TrainingStop:
    """Notes a first SIGINT or SIGTERM; a second one has its usual effect."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._noted = threading.Event()
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self._signum is not None or parent_is_gone()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal comes."""
        self._noted.wait(seconds)

    def __enter__(self) -> TrainingStop:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self._restore()
        return False

    def error(self, where: str) -> TrainingInterrupted:
        """What to raise after a stop, which may have been asked of another process."""
        signum = signal.SIGTERM if self._signum is None else self._signum
        name = signal.Signals(signum).name
        if self._signum is None and parent_is_gone():
            name = "the end of the command that started it,"
        return TrainingInterrupted(
            f"training was stopped by {name} {where}; the same command resumes it", signum
        )

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        self._noted.set()
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()
