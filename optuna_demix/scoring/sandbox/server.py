"""The process inside the jail that is asked for metrics and starts a cell for each.

It runs the task authors' modules, as the worker does, but nothing that a model wrote. Requests and
answers are lines of JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import selectors
import sys
import time
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna_demix.scoring.sandbox import jail, programs
from optuna_demix.scoring.sandbox.cell import Cell, Voice, start
from optuna_demix.scoring.sandbox.code_eval import CodeEval, running_nothing
from optuna_demix.scoring.sandbox.limits import Limits

READY = {"ready": True}
SELF_TEST = "self-test"
CODE_EVAL = "code_eval"
_MOST_PROGRAMS = 10_000  # of one call
_LONGEST_S = 600.0  # of one program
_TRIED = ["x = sum(range(9)); assert x == 36", "assert False"]


@dataclass
class _Running:
    """A cell and what waits for it."""

    cell: Cell
    hear: Callable[[Any], None]
    end: Callable[[str], None]
    deadline: float
    is_program: bool
    left: float = 0.0
    waits: bool = False
    asked: int = 0


@dataclass
class _Batch:
    """Programs that a metric has asked for."""

    caller: _Running
    said: list[str | None]
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.said)


class Server:
    """Answers requests until there are none any more.

    Args:
        lanes: Cells that run at the same time.
        say: Sends an answer.
        occupied: Bytes of address space that this process has.
    """

    def __init__(
        self, lanes: int, say: Callable[[Any], None], occupied: Callable[[], int]
    ) -> None:
        self._lanes, self._say, self._occupied = lanes, say, occupied
        self._modules: dict[str, Any] = {}
        self._selector = selectors.DefaultSelector()
        self._calls: deque[dict[str, Any]] = deque()
        self._programs: deque[tuple[_Batch, int, str, float]] = deque()
        self._running: dict[int, _Running] = {}
        self._code_eval = CodeEval(running_nothing)
        sys.modules["evaluate"] = self._evaluate()

    def serve(self, requests: int) -> None:
        """Answer the requests that come from a file, until it ends."""
        self._selector.register(requests, selectors.EVENT_READ)
        received = b""
        while True:
            self._start_what_waits()
            for key, _ in self._selector.select(self._patience()):
                if key.fd != requests:
                    self._listen(self._running[key.fd])
                    continue
                chunk = os.read(requests, 1 << 20)
                if not chunk:
                    return
                *lines, received = (received + chunk).split(b"\n")
                self._calls.extend(map(json.loads, lines))
            self._end_what_is_late()

    def _patience(self) -> float | None:
        if not self._running:
            return None
        first = min(running.deadline for running in self._running.values())
        return max(0.0, first - time.monotonic())

    def _start_what_waits(self) -> None:
        working = [r for r in self._running.values() if r.is_program]
        while self._programs and len(working) < self._lanes:
            working.append(self._start_program(*self._programs.popleft()))
        while self._calls and len(self._running) - len(working) < self._lanes:
            self._start_call(self._calls.popleft())

    def _listen(self, running: _Running) -> None:
        messages, is_over = running.cell.read()
        for message in messages:
            running.hear(message)
        if is_over:
            self._close(running, "it was killed, or wrote where it must not")

    def _end_what_is_late(self) -> None:
        now = time.monotonic()
        for running in [r for r in self._running.values() if r.deadline <= now]:
            self._close(running, programs.TIMED_OUT)

    def _close(self, running: _Running, why: str) -> None:
        if self._running.pop(running.cell.inbox, None) is None:
            return
        self._selector.unregister(running.cell.inbox)
        running.cell.close()
        if not running.cell.begun:
            raise OSError("a cell could not be made")
        running.end(why)

    def _run(
        self,
        inmate: Callable[[Voice], None],
        limits: Limits,
        *,
        hear: Callable[[_Running, Any], None],
        end: Callable[[str], None],
        is_program: bool,
    ) -> _Running:
        cell = start(inmate, limits, occupied=self._occupied())
        deadline = time.monotonic() + limits.seconds
        running = _Running(cell, lambda _: None, end, deadline, is_program)
        running.hear = partial(hear, running)
        self._running[cell.inbox] = running
        self._selector.register(cell.inbox, selectors.EVENT_READ)
        return running

    # Calls of metrics ------------------------------------------------------------------------

    def _start_call(self, call: dict[str, Any]) -> None:
        answered: list[Any] = []

        def hear(running: _Running, message: Any) -> None:
            if isinstance(message, dict) and "programs" in message:
                self._queue(running, message)
            else:
                answered.append(message)

        def end(why: str) -> None:
            answer = answered[0] if answered else {"lost": why}
            self._say({"id": call["id"], "answer": answer})

        try:
            function = self._function(call["file"], call["module"], call["name"])
        except BaseException as error:
            self._say({"id": call["id"], "answer": _problem(error)})
            return
        work = partial(self._answer, function, call["args"], call["kwargs"])
        limits = Limits(seconds=call["seconds"])
        self._run(work, limits, hear=hear, end=end, is_program=False)

    def _answer(self, function: Any, args: Any, kwargs: Any, voice: Voice) -> None:
        """Call a metric; this is an inmate."""

        def run(texts: list[str], seconds: float) -> list[str]:
            voice.say({"programs": texts, "seconds": seconds})
            found: list[str] = voice.hear()
            return found

        self._code_eval.run = run
        try:
            message = {"value": function(*args, **kwargs)}
        except BaseException as error:
            message = _problem(error)
        try:
            voice.say(message)
        except (TypeError, ValueError) as error:
            voice.say(_problem(error))

    def _function(self, file: str, module: str, name: str) -> Any:
        if not file:
            return {CODE_EVAL: self._code_eval.compute, SELF_TEST: self._test}[name]
        if file not in self._modules:
            self._modules[file] = _imported(file, module)
        return getattr(self._modules[file], name)

    def _test(self) -> list[str]:
        return self._code_eval.run(_TRIED, 10.0)

    def _evaluate(self) -> types.ModuleType:
        """``evaluate`` with one metric; whatever else is asked of it is the library's own."""
        module = types.ModuleType("evaluate")

        def load(path: str, *args: Any, **kwargs: Any) -> Any:
            if path == "code_eval":
                import numpy  # noqa: F401  # here, and not in every cell

                return self._code_eval
            return own().load(path, *args, **kwargs)

        def own() -> Any:
            sys.modules.pop("evaluate", None)
            try:
                return importlib.import_module("evaluate")
            finally:
                sys.modules["evaluate"] = module

        def find(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(own(), name)

        module.load = load  # type: ignore[attr-defined]
        module.__getattr__ = find  # type: ignore[method-assign]
        return module

    # Programs --------------------------------------------------------------------------------

    def _queue(self, caller: _Running, message: dict[str, Any]) -> None:
        texts, seconds = message["programs"], message.get("seconds")
        caller.asked += len(texts) if isinstance(texts, list) else _MOST_PROGRAMS
        if (
            caller.asked > _MOST_PROGRAMS
            or caller.waits
            or not all(isinstance(text, str) for text in texts)
            or not isinstance(seconds, int | float)
            or not 0 < seconds <= _LONGEST_S
        ):
            caller.cell.end()
            return
        batch = _Batch(caller, [None] * len(texts))
        caller.waits = True
        caller.left = caller.deadline - time.monotonic()
        caller.deadline = float("inf")  # its own time stands still
        self._programs.extend((batch, n, text, seconds) for n, text in enumerate(texts))
        self._tell_if_done(batch)

    def _start_program(self, batch: _Batch, number: int, text: str, seconds: float) -> _Running:
        def hear(running: _Running, message: Any) -> None:
            if batch.said[number] is None:
                batch.said[number] = str(message)

        def end(why: str) -> None:
            batch.said[number] = batch.said[number] or f"failed: {why}"
            batch.missing -= 1
            self._tell_if_done(batch)

        return self._run(
            partial(programs.run, text, seconds),
            Limits(seconds=seconds + programs.GRACE_S),
            hear=hear,
            end=end,
            is_program=True,
        )

    def _tell_if_done(self, batch: _Batch) -> None:
        if batch.missing == 0 and batch.caller.cell.inbox in self._running:
            batch.caller.waits = False
            batch.caller.deadline = time.monotonic() + batch.caller.left
            batch.caller.cell.tell(batch.said)


def _imported(file: str, name: str) -> types.ModuleType:
    """A module by its name, or, of a task, by its file, as lm-eval imports it."""
    if "/" not in name and not name.startswith("lm_eval.tasks."):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _problem(error: BaseException) -> dict[str, str]:
    said = " ".join(str(error).split())[:500].encode("ascii", "replace").decode()
    return {"error": type(error).__name__, "said": said}


def main(root: str, visible: list[str], libraries: list[str], lanes: int) -> None:
    """Enter the jail and serve standard input.

    Args:
        root: An empty folder.
        visible: Folders that can be read inside.
        libraries: Those of them that modules are imported from.
        lanes: Cells that run at the same time.
    """

    def say(message: Any) -> None:
        rest = memoryview(json.dumps(message).encode() + b"\n")
        while rest:
            rest = rest[os.write(1, rest) :]

    facts = os.open("/proc", os.O_PATH | os.O_DIRECTORY)

    def occupied() -> int:
        with open(os.open("self/statm", os.O_RDONLY, dir_fd=facts)) as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    try:
        jail.enter(root, visible)
    except OSError as error:
        say({"refused": f"{error.filename or 'system call'}: {error.strerror or error}"})
        sys.exit(1)
    sys.path += libraries
    say(READY)
    try:
        Server(lanes, say, occupied).serve(0)
    except OSError as error:
        say({"refused": str(error)})
        sys.exit(1)
