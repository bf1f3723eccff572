"""Cheap scores as the prior mean of the benchmarks that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.history import Arrays
    from optuna_demix.search.rows.prior_mean import PriorMean


def estimated_from_cheap(trials: Arrays) -> NDArray[np.bool_]:
    """Which scores (n, b) of trials are estimates from cheap ones."""
    mask: NDArray[np.bool_] = ~trials.complete[:, None] & np.isfinite(trials.cheap)
    return mask


class CheapPriorMean:
    """Prior mean of scores, those of screened benchmarks from what their cheap scores teach.

    Every trial has cheap scores, which change smoothly with the mixture; few have the scores that
    count. Held-out errors of these decide how far the former are believed.

    Args:
        given: The prior mean of the others; it goes first where it has one.
        predict: Cheap scores (n, c) of rows (n, d).
        columns: The benchmarks that they stand for (c,).
        n_benchmarks: Number b of all benchmarks.
    """

    def __init__(
        self,
        given: PriorMean | None,
        predict: Callable[[FloatArray], FloatArray],
        columns: NDArray[np.intp],
        n_benchmarks: int,
    ) -> None:
        self._given, self._predict = given, predict
        self._columns, self._n_benchmarks = columns, n_benchmarks

    def __call__(self, X: FloatArray) -> FloatArray:
        """Prior mean (n, b) at rows (n, d); NaN where there is none."""
        shape = (len(X), self._n_benchmarks)
        prior = np.full(shape, np.nan) if self._given is None else self._given(X)
        cheap = np.full(shape, np.nan)
        cheap[:, self._columns] = self._predict(X)
        return np.where(np.isnan(prior), cheap, prior)
