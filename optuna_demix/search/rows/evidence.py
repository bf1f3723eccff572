"""Scores of earlier studies whose sources were others, as a prior mean.

Such a trial is of a mixture like one of today, not of the same: taken as a trial of today it could
outvote new ones, however wrong the map. As a prior mean it is used as far as held-out errors of
new trials confirm it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.surrogate import Surrogate

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.targets import Targets


class Evidence:
    """A surrogate of mapped trials, as :class:`~optuna_demix.DemixSampler` takes a prior mean.

    Args:
        W: Merge weights (n, K).
        Y: What is regressed (n, b), higher is better.
        targets: What is regressed.
        kind: Kind of the surrogate.
        seed: Its seed.
    """

    def __init__(
        self, W: FloatArray, Y: FloatArray, targets: Targets, *, kind: str, seed: int
    ) -> None:
        self._surrogate = Surrogate(kind, seed=seed).fit(W, Y)
        self._signs = np.ones(Y.shape[1]) if targets.benchmarks else targets.signs
        if targets.benchmarks:
            self.benchmarks = targets.benchmarks

    def __call__(self, W: FloatArray) -> FloatArray:
        """Scores (N, b) of merge weights (N, K)."""
        predicted: FloatArray = self._surrogate.predict(W) * self._signs
        return predicted
