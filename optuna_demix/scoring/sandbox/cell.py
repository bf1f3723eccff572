"""A cell: one process that runs foreign code, with no way to any other process.

Two processes make a cell. The keeper stands outside the cell's process namespace and ends it; the
inmate is process 1 inside, so that whatever it leaves behind ends with it. Its folder lies in the
memory of the machine and is gone with its mounts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from os import _exit  # foreign code may put another one in its place
from typing import Any

from optuna_demix.scoring.sandbox import kernel
from optuna_demix.scoring.sandbox.limits import MIB, Limits

MARK = 16
"""Bytes before every message of a cell, which its foreign code is not told."""

LONGEST = 16 * MIB
"""Bytes of the longest message."""

_CHUNK = 1 << 16
_BEGUN = "begun"
_HEADER = struct.Struct(">I")
_USERS = range(20_000, 60_000)  # inside every container's range, and seldom anyone's


@dataclass
class Cell:
    """A running cell, as its starter sees it.

    Attributes:
        keeper: Its process; SIGTERM ends the cell.
        inbox: What the inmate says.
        outbox: What it is told.
        begun: Whether it was made as it should be.
    """

    keeper: int
    inbox: int
    outbox: int
    _mark: bytes
    begun: bool = False
    _received: bytearray = field(default_factory=bytearray)

    def read(self) -> tuple[list[Any], bool]:
        """Messages that have come, and whether there will be none any more.

        Foreign code that writes anything itself ends the messages.
        """
        chunk = os.read(self.inbox, _CHUNK)
        self._received += chunk
        found: list[Any] = []
        start = MARK + _HEADER.size
        while len(self._received) >= start:
            (length,) = _HEADER.unpack_from(self._received, MARK)
            if bytes(self._received[:MARK]) != self._mark or length > LONGEST:
                return found, True
            if len(self._received) < start + length:
                break
            body = bytes(self._received[start : start + length])
            del self._received[: start + length]
            try:
                message = json.loads(body)
            except (ValueError, RecursionError):
                return found, True
            if self.begun:
                found.append(message)
            self.begun = True  # which the first message says
        return found, not chunk

    def tell(self, message: Any) -> None:
        """Tell the inmate something; one that does not listen is not waited for."""
        body = json.dumps(message).encode()
        whole = _HEADER.pack(len(body)) + body
        try:
            heard = os.write(self.outbox, whole) == len(whole)
        except (BlockingIOError, BrokenPipeError):
            heard = False
        if not heard:
            self.end()

    def end(self) -> None:
        """Have the cell ended."""
        try:
            os.kill(self.keeper, signal.SIGTERM)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Let go of a cell that has been read to its end, or that nobody listens to."""
        self.end()
        os.waitpid(self.keeper, 0)
        os.close(self.inbox)
        os.close(self.outbox)


class Voice:
    """How an inmate talks to the starter of its cell."""

    def __init__(self, mark: bytes, out: int, into: int) -> None:
        self._mark, self._out, self._into, self._process = mark, out, into, 0

    def here(self) -> Voice:
        """The same, of this process alone and not of its children."""
        self._process = os.getpid()
        return self

    def say(self, message: Any) -> None:
        """Send a message, unless this is a child of the inmate."""
        if os.getpid() != self._process:
            return
        body = json.dumps(message, default=_plain).encode()
        if len(body) > LONGEST:
            body = json.dumps({"error": "ValueError", "said": "its result is too long"}).encode()
        rest = memoryview(self._mark + _HEADER.pack(len(body)) + body)
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def hear(self) -> Any:
        """Wait for a message."""
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size))
        return json.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            chunk = os.read(self._into, count - len(found))
            if not chunk:
                raise EOFError
            found += chunk
        return found


def start(inmate: Callable[[Voice], None], limits: Limits, *, occupied: int) -> Cell:
    """Start a cell.

    Args:
        inmate: Runs inside; when it returns, the cell ends.
        limits: What it may use.
        occupied: Bytes of address space that this process has.

    Raises:
        OSError: If there is no process or file to be had.
    """
    mark = os.urandom(MARK)
    inbox, out = os.pipe()
    into, outbox = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        try:
            _keep(inmate, limits, Voice(mark, out, into), occupied, (out, into))
        finally:
            _exit(1)
    os.close(out)
    os.close(into)
    os.set_blocking(outbox, False)
    return Cell(keeper, inbox, outbox, mark)


def _keep(
    inmate: Callable[[Voice], None],
    limits: Limits,
    voice: Voice,
    occupied: int,
    pipes: tuple[int, int],
) -> None:
    """Run the inmate in namespaces of its own, and end it when asked to."""
    _close_all_but(pipes)
    kernel.unshare(kernel.CLONE_NEWNS)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    places = ["/box", "/dev/shm"]
    if not os.listdir("/tmp"):  # else the interpreter is installed below it
        places.append("/tmp")
    for place in places:
        kernel.mount("cell", place, "tmpfs", flags, f"size={limits.folder // 3},mode=1777")
    os.chdir("/box")
    spaces = kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    if os.geteuid() == 0:
        kernel.unshare(spaces)
    else:  # processes are counted for each user and user namespace
        kernel.unshare(spaces | kernel.CLONE_NEWUSER)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()  # the starter's group could be killed from inside, across namespaces
            _confine(limits, occupied)
            kernel.die_with_parent(signal.SIGKILL)
            voice.here().say(_BEGUN)
            inmate(voice)
        finally:
            _exit(0)
    for number in pipes:
        os.close(number)
    if signal.sigwait((signal.SIGTERM, signal.SIGCHLD)) == signal.SIGTERM:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _exit(0)


def _confine(limits: Limits, occupied: int) -> None:
    seconds = int(limits.seconds) + 2
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, occupied + limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    if os.geteuid() == 0:
        user = random.SystemRandom().choice(_USERS)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.give_up_privileges()


def _close_all_but(kept: tuple[int, ...]) -> None:
    """Close every file, the standard ones being nothing, except some."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _plain(value: Any) -> Any:
    """An array or a number of one as Python has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
