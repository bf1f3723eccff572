"""What every kind of regressor offers: one benchmark, in standard units, with held-out errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    IntArray = NDArray[np.intp]


class Prediction(NamedTuple):
    """Mean and epistemic variance of scores, each (n,)."""

    mean: FloatArray
    variance: FloatArray


class Regressor(Protocol):
    """A fitted regressor of one benchmark whose scores have mean 0 and variance 1.

    Attributes:
        shares: Weight of each kind in the mean; they sum to 1.
        held_out: Predictions (n,) of the training rows, each made without the fold it lies in.
        optimism: Factor by which the squared held-out errors are smaller than those of new rows,
            because something was chosen with the rows in sight.
    """

    shares: dict[str, float]
    held_out: Prediction
    optimism: float

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d); cheaper than ``predict``."""
        ...

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its kind, numbers and arrays: what another program needs to predict the same."""
        ...


def make_folds(n: int, n_folds: int, seed: int) -> list[IntArray]:
    """Random split of n rows into at most ``n_folds`` folds of nearly equal size."""
    order = np.random.default_rng([seed, n]).permutation(n)
    return [order[start::n_folds] for start in range(min(n_folds, n))]


class Constant:
    """The mean, for a benchmark that says nothing: too few rows or equal scores.

    Args:
        n: Number of training rows.
    """

    def __init__(self, n: int) -> None:
        self._variance = 1.0 / max(n, 1)
        self.shares = {"constant": 1.0}
        self.held_out = self.predict(np.empty((n, 0)))
        self.optimism = 1.0

    def mean(self, X: FloatArray) -> FloatArray:
        """Zeros (N,)."""
        return np.zeros(len(X))

    def predict(self, X: FloatArray) -> Prediction:
        """The same mean and variance (N,) for every row (N, d)."""
        return Prediction(np.zeros(len(X)), np.full(len(X), self._variance))

    def describe(self) -> dict[str, Any]:
        """The variance."""
        return {"kind": "constant", "variance": self._variance}
