"""Which prompts are read together and when: no model, no tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from optuna_demix.scoring.generation.engine import Prompt

_WORTH_SHARING = 16  # tokens; fewer are computed again for each prompt
_JOINING_PART = 8  # rows are filled up when this part of them is free


@dataclass(frozen=True)
class Group:
    """Prompts that begin alike.

    Attributes:
        prompts: The prompts, the longest first.
        shared: What all begin with, shorter than each of them; empty if not worth it.
    """

    prompts: list[Prompt]
    shared: tuple[int, ...]


def grouped(prompts: Iterable[Prompt]) -> list[Group]:
    """Put prompts of one group together, each prompt once; groups in order of appearance.

    Those that lack what most of a group begin with, as truncated ones do, are one of their own.
    """
    members: dict[str, list[Prompt]] = {}
    for prompt in dict.fromkeys(prompts):
        members.setdefault(prompt.group, []).append(prompt)
    return [
        Group(sorted(part, key=lambda p: (-len(p.ids), p.ids)), shared_beginning(part))
        for found in members.values()
        for part in _parted(found)
        if part
    ]


def _parted(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts that begin as most do, and the others."""
    middle = sorted(p.ids for p in prompts)[len(prompts) // 2]
    alike = [common(p.ids, middle) for p in prompts]
    usual = sorted(alike)[len(prompts) // 2]
    least = usual / 2 if usual >= _WORTH_SHARING else 0
    pairs = list(zip(prompts, alike, strict=True))
    return [p for p, n in pairs if n >= least], [p for p, n in pairs if n < least]


def shared_beginning(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """The tokens that several prompts begin with and that are worth being computed once."""
    low, high = min(p.ids for p in prompts), max(p.ids for p in prompts)
    shared = common(low, high)
    room = min(len(p.ids) for p in prompts) - 1  # the last token is read with its row
    shared = min(shared, room)
    return low[:shared] if len(prompts) > 1 and shared >= _WORTH_SHARING else ()


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class Queue:
    """Prompts that wait for a free row.

    Args:
        groups: The prompts.
        rows: Rows that there are.
    """

    def __init__(self, groups: Sequence[Group], rows: int) -> None:
        self._groups = deque(groups)
        self._rows = rows
        self._next = 0  # of the first group

    def __bool__(self) -> bool:
        return bool(self._groups)

    def joining(self, active: int) -> tuple[list[Prompt], tuple[int, ...]]:
        """Take the prompts that join now.

        A few free rows are waited for, so that prompts are read together.

        Args:
            active: Rows in use.

        Returns:
            The prompts, of one group, and what they begin with alike; none if rows go on first.
        """
        free = self._rows - active
        if not self._groups or (active and free < max(1, self._rows // _JOINING_PART)):
            return [], ()
        group = self._groups[0]
        taken = group.prompts[self._next : self._next + free]
        self._next += len(taken)
        if self._next == len(group.prompts):
            self._groups.popleft()
            self._next = 0
        return taken, group.shared


def without(groups: Iterable[Group], done: Iterable[Prompt]) -> Iterator[Group]:
    """Groups of the prompts that are not done yet."""
    finished = set(done)
    for group in groups:
        left = [prompt for prompt in group.prompts if prompt not in finished]
        if left:
            yield Group(left, group.shared)
