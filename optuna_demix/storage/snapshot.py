"""All trials of a study as read once, for several readers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_FRESH_S = 1.0
"""Seconds for which a snapshot serves."""


class Snapshot(threading.local):
    """All trials of a study as one thread has read them last.

    Each thread has its own: what another one reads while this one writes must not pass for what
    was read after the write.
    """

    def __init__(self) -> None:
        self.is_shared = False
        """Whether reads of this thread may be answered from the snapshot."""
        self._taken: tuple[int, float, list[FrozenTrial]] | None = None  # study, time, trials

    def end(self) -> None:
        """Share it no longer."""
        self.is_shared, self._taken = False, None

    def refresh(self) -> None:
        """Let the next read be a new one."""
        self._taken = None

    def trials(self, study_id: int, read: Callable[[], list[FrozenTrial]]) -> list[FrozenTrial]:
        """The trials of a study, read unless the snapshot is fresh."""
        taken = self._taken
        if taken is None or taken[0] != study_id or time.monotonic() - taken[1] > _FRESH_S:
            trials = read()
            self._taken = taken = study_id, time.monotonic(), trials
        return taken[2]
