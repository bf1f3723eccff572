"""``ForwardPlan``: requests that are tokenized and laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna_demix.scoring.forward import Batch, PackedBatch
from optuna_demix.scoring.generation import Prompt


@dataclass(frozen=True)
class ForwardPlan:
    """Requests of one kind, ready to be answered.

    Attributes:
        kind: The kind.
        instances: lm-eval's requests, repeated ones several times.
        passes: Their layout; empty for generation.
        windows: Of each request, how many runs of tokens it was cut into.
        think_end_token: Of texts only what follows the last such token is the answer.
        prompts: Of texts, what the engine is given; ``None`` where lm-eval writes.
    """

    kind: str
    instances: list[Any]
    passes: Sequence[Batch | PackedBatch]
    windows: list[int]
    think_end_token: str | int | None = None
    prompts: list[Prompt | None] = field(default_factory=list)
