"""What writes texts: prompts in, token ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Arguments:
    """How a text is to be written.

    Attributes:
        max_tokens: Most tokens of the text.
        stops: Texts that end it; whoever decodes the tokens cuts the text there.
        others: Any further argument of transformers' ``generate``.
    """

    max_tokens: int
    stops: tuple[str, ...]
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Prompt:
    """A text to be gone on with.

    Attributes:
        ids: Its tokens, at least one, already cut to what fits before the new ones, (n,).
        arguments: How.
        group: Prompts of one group are expected to begin alike.
    """

    ids: tuple[int, ...]
    arguments: Arguments
    group: str


class GenerationEngine(Protocol):
    """Writes texts with the weights that a live model has now."""

    def refuses(self, arguments: Arguments) -> str | None:
        """Why it cannot write so, or ``None`` if it can; the weights do not matter."""

    def weights_changed(self) -> None:
        """Forget all that depends on the weights."""

    def generate(self, prompts: Sequence[Prompt]) -> list[list[int] | None]:
        """Go on with prompts.

        Args:
            prompts: Prompts whose arguments are not refused.

        Returns:
            Of every prompt the new tokens, an end token included; they may go beyond a stop
            string. ``None`` where the model answers with NaN.

        Raises:
            TaskError: If not even one prompt fits into memory.
        """

    def describe(self) -> dict[str, Any]:
        """What the texts depend on beside weights, prompts and arguments; JSON-able."""
