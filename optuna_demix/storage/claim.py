"""Claims: which of many processes may write something to a study that they share.

Optuna's storages have no compare-and-set, but each write is seen by every read that follows it. So
a process writes a key of its own and then reads the keys of all others: of two that do so, at
least the one that writes later sees the other. A claim is made in two such steps.

1. The process *asks*. Of those that ask at the same moment, the one with the least key stays until
   the others have withdrawn; they withdraw at once. One that has died while it asked is passed
   over after a while.
2. Having seen nobody else, it *holds*, and reads once more. A process that was suspended between
   two calls, and passed over for dead, finds here that another one holds, and withdraws.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from optuna_demix.storage.unchanged import Unchanged

if TYPE_CHECKING:
    from optuna.study import Study

_DEAD_S = 3600.0
"""Age by the clocks of two hosts, which may differ, of a claim that counts as a dead process'."""

_CHECKS, _CHECK_S = 40, 0.05
"""How often, and at which interval, one that asks checks whether the others have withdrawn."""

_WAIT_S = 0.5
"""Seconds between two attempts of a process that waits for a claim."""


class Claim:
    """One process' claim of something in a study.

    Args:
        study: The study.
        prefix: Of the system attributes that hold the claims of all processes.
        patience_s: Seconds after which a process counts as dead whose claim stands unchanged.
        purpose: What the process claims it for, as JSON. Processes of the same purpose hold the
            claim together, and one that is held stands until it is released, whatever becomes of
            its process: what it says is decided. Without a purpose only one process holds the
            claim, and it is passed over when it seems to have died.
        monotonic: Clock of this process.
        wall: Clock that is written down.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        study: Study,
        prefix: str,
        *,
        patience_s: float,
        purpose: Any = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.decided: Any = None
        """The purpose of another process that held the claim when this one last asked for it."""
        self._study = study
        self._prefix = prefix
        self._key = f"{prefix}{uuid4().hex}"
        self._purpose = json.loads(json.dumps(purpose))  # as others read it
        self._patience_s = patience_s
        self._unchanged = Unchanged(monotonic)
        self._wall = wall
        self._sleep = sleep
        self._is_written = False

    @contextmanager
    def held(self, *, wait: bool = False) -> Iterator[bool]:
        """Hold the claim within the block; yields whether it is held.

        Args:
            wait: Wait for processes that ask for it, until this one holds it or one of another
                purpose does.
        """
        try:
            is_held = self._ask()
            while wait and not is_held and self.decided is None:
                self._sleep(_WAIT_S)
                is_held = self._ask()
            yield is_held
        except BaseException:
            with suppress(Exception):  # the storage may be lost
                self._withdraw()
            raise
        self._withdraw()

    def _ask(self) -> bool:
        if self._rivals():
            return False
        # An id for each claim: others tell a standing one from a new one by it.
        claim = {"id": uuid4().hex, "at": self._wall(), "held": False}
        if self._purpose is not None:
            claim["purpose"] = self._purpose
        self._write(claim)
        for _ in range(_CHECKS):
            rivals = self._rivals()
            if not rivals:
                self._write({**claim, "held": True})
                if any(_is_held(rival) for rival in self._rivals().values()):
                    break
                return True
            if min(rivals) < self._key or any(_is_held(rival) for rival in rivals.values()):
                break
            self._sleep(_CHECK_S)
        self._withdraw()
        return False

    def _rivals(self) -> dict[str, Any]:
        """Claims of others, of another purpose, that may be alive."""
        # Public methods for system attributes are gone from Optuna's studies.
        attrs = self._study._storage.get_study_system_attrs(self._study._study_id)
        rivals = {
            key: claim
            for key, claim in attrs.items()
            if key.startswith(self._prefix) and key != self._key and self._is_rival(key, claim)
        }
        held = [claim for claim in rivals.values() if _is_held(claim)]
        self.decided = held[0].get("purpose") if held else None
        return rivals

    def _is_rival(self, key: str, claim: Any) -> bool:
        if claim is None:
            return False
        if self._purpose is not None:
            if isinstance(claim, Mapping) and claim.get("purpose") == self._purpose:
                return False
            if _is_held(claim):
                return True
        at = claim.get("at") if isinstance(claim, Mapping) else None
        age = self._wall() - at if isinstance(at, (int, float)) else 0.0
        return self._unchanged.seconds(key, claim) < self._patience_s and age < _DEAD_S

    def _withdraw(self) -> None:
        if self._is_written:
            self._write(None)
            self._is_written = False

    def _write(self, claim: dict[str, Any] | None) -> None:
        self._is_written = True
        self._study._storage.set_study_system_attr(self._study._study_id, self._key, claim)


def _is_held(claim: Any) -> bool:
    return isinstance(claim, Mapping) and bool(claim.get("held"))
