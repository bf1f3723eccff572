"""How far the texts of one scoring have come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from optuna_demix.scoring.generation.engine import Prompt

Watcher: TypeAlias = "Callable[[int, int], None]"
"""Told how many tokens are written and how many are expected."""


class Progress:
    """Counts the tokens of texts, of any engine.

    A text is expected to be as long as it was with the last weights; one that was never written
    as long as the others were, or, before any was, as it may be.

    Attributes:
        watcher: Who is told; ``None`` for nobody.
    """

    def __init__(self) -> None:
        self.watcher: Watcher | None = None
        self._lengths: dict[Prompt, int | None] = {}
        self._written = self._settled = self._expected = 0

    def plan(self, prompts: Iterable[Prompt]) -> None:
        """Expect the texts of these prompts in every scoring."""
        self._lengths |= dict.fromkeys(prompts)

    def restart(self) -> None:
        """Begin to count anew, for new weights."""
        known = [length for length in self._lengths.values() if length is not None]
        usual = round(sum(known) / len(known)) if known else None
        self._expected = sum(
            length if length is not None else usual or prompt.arguments.max_tokens
            for prompt, length in self._lengths.items()
        )
        self._written = self._settled = 0
        self.add(0)

    def add(self, count: int) -> None:
        """So many more tokens are written."""
        self._written += count
        if self.watcher is not None:
            self.watcher(self._written, max(self._written, self._expected))

    def settle(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[int] | None]) -> None:
        """These texts are finished: tokens that nobody counted are counted now."""
        found = {p: len(text or ()) for p, text in zip(prompts, texts, strict=True)}
        self._lengths |= found
        self._settled += sum(found.values())
        self._written = self._settled
        self.add(0)
