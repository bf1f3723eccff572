"""Processes that one command starts on its host, and replaces when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from optuna_demix._progress import Report
from optuna_demix._stop import StopRequest

MAX_RESTARTS = 3
"""Times that a process is replaced; its owner may count anew once it has done some work."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_POLL_S = 0.5


class Child:
    """One of several processes, and those that replace it.

    Args:
        index: Its number.
        command: What it runs.
        environment: Where.
        printer: Prints what it says.
        more: Arguments of the process that is started now; ``None`` if none is to be started
            any more.
    """

    process: subprocess.Popen[str]

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        printer: Printer,
        more: Callable[[], Sequence[str] | None] = tuple,
    ) -> None:
        self.index = index
        self.restarts = 0
        self._command, self._environment = command, environment
        self._more = more
        self._printer = printer
        self._given_up = False
        self._readers: list[threading.Thread] = []
        self.start()

    @property
    def code(self) -> int:
        """Exit status of its last process, once that has ended."""
        return self.process.returncode or 0

    def start(self) -> bool:
        """Start a process; returns whether one was to be started."""
        more = self._more()
        if more is None:
            self._given_up = True
            return False
        self.process = subprocess.Popen(
            [*self._command, *more],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A session of its own: Ctrl-C reaches the parent alone, which asks politely.
            start_new_session=True,
        )
        reader = threading.Thread(
            target=self._printer.follow, args=(self.process, self.index), daemon=True
        )
        reader.start()
        self._readers.append(reader)
        return True

    def give_up(self) -> None:
        """Replace it no more."""
        self._given_up = True

    def replace(self, said: str, *, fruitless: str = "") -> None:
        """Start another process in the place of one that was killed, at most so often; say so.

        Args:
            said: What became of the last one.
            fruitless: What the limit counts restarts without, in words.
        """
        if self.restarts == MAX_RESTARTS:
            said = f"error: {said}; given up, after {MAX_RESTARTS} restarts{fruitless}"
            self.give_up()
        elif self.start():
            self.restarts += 1
            said += f"; started again ({self.restarts} of at most {MAX_RESTARTS} times)"
        else:
            said += "; the time is over"
        self._printer.say(said)

    def runs(self) -> bool:
        """Whether its process runs, or is still to be replaced."""
        return self.process.poll() is None or self.was_killed()

    def was_killed(self) -> bool:
        """Whether its process was ended by a signal that is no request to stop."""
        asked = (signal.SIGINT, signal.SIGTERM)
        ended = self.process.poll() is not None and not self._given_up
        return ended and self.code < 0 and -self.code not in asked

    def death(self) -> str:
        """What killed its last process, in words."""
        doubt = ", perhaps for lack of memory" if -self.code == signal.SIGKILL else ""
        return (
            f"{self._printer.kind} {self.index} (process {self.process.pid}) was ended by "
            f"{signal.Signals(-self.code).name}{doubt}"
        )

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end, and until all that it has said is printed."""
        self.process.wait()
        for reader in self._readers:
            reader.join()


class Printer:
    """Prints lines of several processes, what all of them say once.

    Args:
        report: Where they are printed.
        kind: What the processes are called.
        each: What a line holds that is printed each time.
    """

    def __init__(self, report: Report, kind: str, each: str | None = None) -> None:
        self.report = report
        self.kind = kind
        self._each = each
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def follow(self, process: subprocess.Popen[str], index: int) -> None:
        """Print what a process says, until its end."""
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            with self._lock:
                known = text in self._known
                self._known.add(text)
            if text and (not known or (self._each is not None and self._each in text)):
                self._print(text if "error:" in text else f"[{self.kind} {index}] {text}")

    def say(self, line: str) -> None:
        """Print a line of the parent's own."""
        self._print(f"optuna-demix: {line}")

    def _print(self, line: str) -> None:
        with self._lock:
            self.report(line)


@contextmanager
def ended(children: Sequence[Child]) -> Iterator[None]:
    """Leave the block only when all children have ended."""
    try:
        yield
    finally:
        for child in children:
            child.wait()


def tend(
    children: Sequence[Child],
    stop: StopRequest,
    printer: Printer,
    *,
    stopping: str,
    killed: Callable[[Child], None],
    refresh: Callable[[], None] | None = None,
) -> None:
    """Pass on requests to stop and replace what is killed, until all children have ended.

    Args:
        children: The processes.
        stop: Where requests come in; each of them is passed on.
        printer: Where requests are said.
        stopping: What the children do when they are asked to stop.
        killed: Replaces or gives up a child that was killed.
        refresh: Called now and then.
    """
    while any([child.runs() for child in children]):
        if stop.event.wait(_POLL_S):
            stop.event.clear()  # so that a second request is passed on as well
            printer.say(stopping)
            for child in children:
                child.terminate()
        for child in [each for each in children if each.was_killed()]:
            if stop.signum:
                child.give_up()
            else:
                killed(child)
        if refresh is not None:
            refresh()


def failure_of(children: Sequence[Child]) -> int:
    """Exit status of the first child that did not end well; 0 if there is none."""
    codes = [child.code for child in children]
    return next((code for code in codes if code > 0), 1 if any(codes) else 0)


def thread_shares(n_processes: int) -> dict[str, str]:
    """Variables by which several processes share the threads of this host evenly."""
    affinity = getattr(os, "sched_getaffinity", None)
    n_cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, n_cores // n_processes)))


def visible_devices() -> list[str]:
    """CUDA devices by what ``CUDA_VISIBLE_DEVICES`` or the driver says, torch not imported."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()
