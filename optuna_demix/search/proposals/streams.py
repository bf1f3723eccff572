"""Randomness: a stream for each trial and purpose."""

from __future__ import annotations

import numpy as np
from optuna.samplers._lazy_random_state import LazyRandomState


class Streams:
    """Random generators that follow from a seed, a trial's number and a purpose.

    Workers that share a seed never draw the same point, as they never share a trial, and a
    resumed study goes on with the same sequence.

    Args:
        seed: The seed; ``None`` for one that is drawn when it is first needed, so that copies of
            an unseeded sampler do not share it.
    """

    def __init__(self, seed: int | None) -> None:
        self.is_seeded = seed is not None
        self._random = LazyRandomState(seed)
        self._entropy: int | None = None

    def reseed(self) -> None:
        """Draw new randomness, unless a seed was given: its streams differ by trial already."""
        if not self.is_seeded:
            self._random.rng.seed()
            self._entropy = None

    def seed_of(self, number: int, purpose: str) -> int:
        """Seed for one purpose of one trial."""
        if self._entropy is None:
            self._entropy = int(self._random.rng.randint(2**31 - 1))
        words = [self._entropy, number, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def generator(self, number: int, purpose: str) -> np.random.Generator:
        """Generator for one purpose of one trial."""
        return np.random.default_rng(self.seed_of(number, purpose))
