"""Leases: which of many processes, on any hosts that share a disk, does a piece of work.

A lease is a folder with one file, whose name says who holds it and how often it was renewed, or
that it is free. All that happens to it is a rename of that file from the name that was seen: it
succeeds for one process alone, at the file server itself, whatever clients have cached, and fails
for everybody who saw an older name. So a lease that was renewed in the meantime cannot be taken,
and a holder that slept through its end cannot renew it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from optuna_demix._process_id import is_dead_here, own_name

RENEW_S = 20.0
"""Seconds between two renewals."""

STALE_S = 300.0
"""Seconds after which a lease that was not renewed may be taken, by the clock of its disk."""

_FREE = "free"
_HELD = re.compile(r"(?P<holder>.+),(?P<token>[0-9a-f]{16}),(?P<count>\d+)")

_own_tokens: set[str] = set()  # of leases that this process holds


class LeaseLostError(Exception):
    """Another process has taken the lease: nothing may be written any more."""


class Lease:
    """A lease that this process holds; a thread renews it.

    Attributes:
        token: Random name of this holding.
    """

    def __init__(self, place: Path, token: str) -> None:
        self.token = token
        self._place = place
        self._name = _label(token, 0)
        self._lost = False
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease {place.name}", daemon=True)

    @classmethod
    def take(cls, place: Path) -> Lease | None:
        """Take a lease that is free, or whose holder is dead.

        Args:
            place: Its folder; made where it is missing.

        Returns:
            The lease, or ``None`` if another process holds it.
        """
        name = _current(place)
        if name is None:
            _make(place)
            name = _current(place)
        if name is None or not _may_be_taken(place, name):
            return None
        token = secrets.token_hex(8)
        if not _renamed(place, name, _label(token, 0)):
            return None
        _own_tokens.add(token)
        lease = cls(place, token)
        try:
            os.utime(place / lease._name)
        except FileNotFoundError:  # taken again at once: it looked as old as before
            _own_tokens.discard(token)
            return None
        lease._thread.start()
        return lease

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self.release()
        return False

    def is_lost(self) -> bool:
        """Whether it is known to be lost; asks the disk only after renewals have failed."""
        if not self._lost and time.monotonic() - self._renewed > STALE_S / 2:
            with suppress(OSError):
                return not self.holds()
        return self._lost

    def holds(self) -> bool:
        """Whether this process still holds it, as :meth:`check` finds out."""
        try:
            self.check()
        except LeaseLostError:
            return False
        return True

    def check(self) -> None:
        """Make sure that this process still holds it, by renewing it.

        Raises:
            LeaseLostError: If it does not.
        """
        with self._lock:
            holder, token, count = self._name.rsplit(",", 2)
            new = f"{holder},{token},{int(count) + 1}"
            try:
                if self._lost or not _renamed(self._place, self._name, new):
                    raise FileNotFoundError
                self._name = new
                os.utime(self._place / new)
            except FileNotFoundError:
                self._lost = True
                raise LeaseLostError(str(self._place)) from None
            self._renewed = time.monotonic()

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        self._thread.join()
        _own_tokens.discard(self.token)
        if not self._lost:
            _renamed(self._place, self._name, _FREE)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                self.check()
            except LeaseLostError:
                return
            except OSError:  # the disk may come back
                continue


def holder_of(place: Path) -> str | None:
    """Who holds a lease, in words; ``None`` if it may be taken."""
    name = _current(place)
    held = None if name is None else _HELD.fullmatch(name)
    if name is None or held is None or _may_be_taken(place, name):
        return None
    host, _, process = held["holder"].split(" ")
    return f"process {process} of {host}"


def fresh_time(folder: Path) -> float:
    """The clock of the disk that holds a folder, whose entries are looked up anew.

    Clients of a network disk keep for a minute what they know of a folder, also that something is
    not there. A change to the folder ends that, and leaves its server's time behind.
    """
    os.utime(folder)
    return folder.stat().st_mtime


def _label(token: str, count: int) -> str:
    return f"{own_name()},{token},{count}"


def _current(place: Path) -> str | None:
    """The name of a lease's only file; ``None`` in the moment of a rename."""
    try:
        found = [name for name in os.listdir(place) if name == _FREE or _HELD.fullmatch(name)]
    except FileNotFoundError:
        return None
    return found[0] if len(found) == 1 else None


def _make(place: Path) -> None:
    """Make a free lease, unless there is one: a folder cannot replace one that has a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    made.mkdir()
    try:
        (made / _FREE).touch()
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _may_be_taken(place: Path, name: str) -> bool:
    held = _HELD.fullmatch(name)
    if held is None:
        return True
    if held["holder"] == own_name():
        # Its process id is ours: we hold it, or who had the id before did, as the first process
        # of a container that was started again.
        return held["token"] not in _own_tokens
    if is_dead_here(held["holder"]):
        return True
    try:
        return fresh_time(place) - (place / name).stat().st_mtime > STALE_S
    except FileNotFoundError:
        return False  # renewed


def _renamed(place: Path, old: str, new: str) -> bool:
    try:
        os.rename(place / old, place / new)
    except FileNotFoundError:
        # A network disk may have done it and lost the answer; names are never used twice.
        return new != _FREE and (place / new).exists()
    return True
