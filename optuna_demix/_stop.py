"""SIGINT and SIGTERM as a request to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal


class StopRequest:
    """SIGINT and SIGTERM as a request to stop.

    Before the first trial either of them interrupts at once. Later the first one ends the worker
    after its trial, and a second one interrupts the trial, which is released. SIGTERM, which
    schedulers send, is followed by such a second one from ourselves when the grace is over.

    Args:
        grace_s: Seconds that a trial has after SIGTERM.
    """

    def __init__(self, *, grace_s: float | None = None) -> None:
        self.event = threading.Event()
        """Set by the first signal."""
        self.urgent = threading.Event()
        """Set by the second one: nothing may be waited for any more."""
        self.signum = 0
        """The first signal."""
        self._grace_s = grace_s
        self._phase: Literal["setup", "between", "trial"] = "setup"
        self._timer: threading.Timer | None = None

    @contextmanager
    def installed(self) -> Iterator[StopRequest]:
        """Catch the signals while in the block; a no-op outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """From here on a signal is a request and no interruption."""
        self._phase = "between"
        try:
            yield
        finally:
            self._phase = "setup"

    @contextmanager
    def trial(self) -> Iterator[None]:
        """The block may be interrupted by a second signal; nothing else is."""
        self._phase = "trial"
        try:
            yield
        finally:
            self._phase = "between"

    def _note(self, signum: int, frame: Any) -> None:
        is_first = not self.event.is_set()
        if is_first:
            self.signum = signum
        self.event.set()
        if is_first and signum == signal.SIGTERM and self._grace_s is not None:
            self._timer = threading.Timer(self._grace_s, os.kill, (os.getpid(), signal.SIGTERM))
            self._timer.daemon = True
            self._timer.start()
        if not is_first:
            self.urgent.set()
        if self._phase == "setup" or (self._phase == "trial" and not is_first):
            raise KeyboardInterrupt(signum)
