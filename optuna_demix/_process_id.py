"""Which process does a piece of work, which one started it, and whether they still live."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

PARENT_ENV = "OPTUNA_DEMIX_PARENT"
"""Environment variable: process id of the parent of several processes on one host."""


def own_name() -> str:
    """Host, process namespace and process id of this process."""
    return name_of(os.getpid())


def name_of(process: int) -> str:
    """The same of another process of this place."""
    return f"{_own_place()} {process}"


def is_dead_here(name: str) -> bool:
    """Whether a process was one of this place and lives no more, by its name."""
    place, _, process = name.rpartition(" ")
    return place == _own_place() and not _may_live(process)


def parent_is_gone() -> bool:
    """Whether this process was started by another one with its id, which lives no more."""
    parent = os.environ.get(PARENT_ENV)
    return parent is not None and os.getppid() != int(parent)


def _own_place() -> str:
    """Where a process id means what it means here: containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        marks = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        marks = ""  # not Linux: the host name has to do
    scope = hashlib.sha256(marks.encode()).hexdigest()[:8]
    return f"{socket.gethostname()} {scope}"


def _may_live(process: str) -> bool:
    """Whether a process of this place may still live; only a plain no counts as dead."""
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")  # dead, and only not yet collected by its parent
