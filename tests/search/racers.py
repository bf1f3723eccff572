"""A model that is scored block by block, without a model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from optuna_demix.scoring import BlockScores

BLOCKS = 12


class Runner:
    """A model whose score is its share of code, on blocks some of which are much harder.

    Args:
        broken_at: Block whose score is NaN.
        best: Share of code with the best score; ``None``: the more the better.
    """

    names = ("web", "code")

    def __init__(self, *, broken_at: int | None = None, best: float | None = None) -> None:
        self.broken_at, self.best, self.blocks_run = broken_at, best, 0

    def merge(self, w: np.ndarray) -> None:
        self.code = float(w[1])
        self.quality = self.code if self.best is None else -((self.code - self.best) ** 2)

    def score(self) -> dict[str, float]:
        return dict(list(self.race())[-1].so_far)

    def race(self) -> Iterator[BlockScores]:
        seen = []
        for block in range(BLOCKS):
            self.blocks_run += 1
            noise = 0.01 * math.sin(7 * block + 50 * self.code)
            seen.append(
                math.nan
                if block == self.broken_at
                else self.quality - (5 * block + 8) % BLOCKS + noise
            )
            yield BlockScores(
                {"humaneval": seen[-1]},
                {"humaneval": float(np.mean(seen))},
                {"humaneval": 5 * (block + 1)},
                block + 1 == BLOCKS,
            )
