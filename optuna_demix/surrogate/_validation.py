"""How well predictions rank rows they have not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray


@dataclass(frozen=True)
class Validation:
    """Held-out accuracy of a surrogate, per benchmark.

    Attributes:
        spearman: Rank correlation (m,) of held-out predictions and scores; NaN where undefined
            (fewer than three rows, or predictions or scores that are all equal).
        spearman_top_quarter: The same (m,) among the quarter of rows with the highest scores:
            can the surrogate still tell good mixtures apart?
        coverage: Share (m,) of scores inside the 90 % interval of their held-out prediction.
        n: Number (m,) of scores that were compared.
        kinds: ``Surrogate.kinds_`` of the fit to all rows.
        mean: Held-out prediction (n, m) of every row; NaN where there was nothing to learn from.
        std: Standard deviation (n, m) of that prediction, as ``Surrogate.predict`` returns it.
        noise: Standard deviation (n, m) of a score about it, beside ``std``.
    """

    spearman: FloatArray
    spearman_top_quarter: FloatArray
    coverage: FloatArray
    n: NDArray[np.intp]
    kinds: tuple[str, ...]
    mean: FloatArray
    std: FloatArray
    noise: FloatArray


def average_ranks(values: FloatArray) -> FloatArray:
    """Ranks (n,) from 0, equal values sharing the mean of theirs."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: FloatArray = last - (counts + 1) / 2.0
    return shared[position]


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Spearman's rank correlation of two vectors (n,); NaN where it is undefined."""
    if len(a) < 3:
        return float("nan")
    rank_a, rank_b = average_ranks(a), average_ranks(b)
    rank_a -= rank_a.mean()
    rank_b -= rank_b.mean()
    scale = float(np.sqrt((rank_a @ rank_a) * (rank_b @ rank_b)))
    return float(rank_a @ rank_b) / scale if scale > 0 else float("nan")


def top_quarter(y: FloatArray) -> NDArray[np.bool_]:
    """Mask (n,) of the rows whose score reaches the upper quartile."""
    if len(y) == 0:
        return np.zeros(0, dtype=bool)
    mask: NDArray[np.bool_] = y >= np.quantile(y, 0.75)
    return mask
