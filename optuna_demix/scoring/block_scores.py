"""What is known of a model after a block of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BlockScores:
    """Scores of a model after one block of documents.

    Attributes:
        block: Score of each benchmark on this block's documents alone, higher is better.
        so_far: The same on all documents up to here.
        items: How many these are, by benchmark.
        last: Whether these are all documents.
    """

    block: Mapping[str, float]
    so_far: Mapping[str, float]
    items: Mapping[str, int]
    last: bool
