"""Two actors on one storage, whose calls are interleaved as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from itertools import combinations
from typing import Any


def schedules(n_calls: int, n_switches: int) -> Iterator[tuple[int, ...]]:
    """All ways to switch between actors at most so often: the numbers of the calls before it."""
    for n in range(n_switches + 1):
        yield from combinations(range(1, n_calls), n)


class Actor:
    """A thread that makes one call of a storage at a time, and only when it is let.

    Args:
        name: Name of the thread.
        storage: The storage.
        act: Called in the thread with this actor, which stands for the storage.
    """

    def __init__(self, name: str, storage: Any, act: Callable[[Any], Any]) -> None:
        self.result: Any = None
        """What ``act`` has returned or raised."""
        self.is_done = False
        self.sleeps = False
        """Whether its next call comes after a sleep."""
        self._storage = storage
        self._act = act
        self._go = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._paused.acquire()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._storage, name)
        if not callable(call):
            return call

        def paused(*args: Any, **kwargs: Any) -> Any:
            self._pause()
            return call(*args, **kwargs)

        return paused

    def step(self) -> None:
        """Let it make one call, and come to the next one or to its end."""
        self._go.release()
        self._paused.acquire()

    def sleep(self, seconds: float) -> None:
        """What it calls to wait; another actor goes on meanwhile."""
        self.sleeps = True
        self._pause()
        self.sleeps = False

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()

    def _run(self) -> None:
        try:
            self.result = self._act(self)
        except BaseException as error:
            self.result = error
        self.is_done = True
        self._paused.release()


def interleave(first: Actor, second: Actor, switches: Collection[int]) -> int:
    """Let two actors act to their ends; they change places after the calls named in ``switches``.

    They do so too when one sleeps or is done.

    Returns:
        The number of calls.
    """
    n_calls, now, other = 0, first, second
    while not (now.is_done and other.is_done):
        if n_calls in switches or now.sleeps:
            now, other = other, now
        if now.is_done:
            now, other = other, now
        now.step()
        n_calls += 1
        assert n_calls < 10_000, "neither of them gets on"
    return n_calls
