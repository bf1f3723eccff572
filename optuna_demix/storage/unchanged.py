"""For how long values in a storage have stood unchanged, as one process has seen it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable
from typing import Any


class Unchanged:
    """Since when this process has seen values unchanged.

    This tells a process that is gone from one that lives, without comparing the clocks of two
    hosts: the one that lives changes what it has written, and the other's stands still. Who has
    just come sees everything unchanged since now.

    Args:
        monotonic: Clock of this process, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._seen: dict[Hashable, tuple[Any, float]] = {}  # key: its value, and since when

    def since(self, key: Hashable, value: Any) -> float:
        """Time at which this process first saw the value that a key has now."""
        now = self.monotonic()
        known, since = self._seen.get(key, (None, now))
        if known != value:
            since = now
        self._seen[key] = (value, since)
        return since

    def seconds(self, key: Hashable, value: Any) -> float:
        """Seconds for which this process has seen the value that a key has now."""
        since = self.since(key, value)
        return self.monotonic() - since

    def keep(self, keys: Collection[Hashable]) -> None:
        """Forget all other keys."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
