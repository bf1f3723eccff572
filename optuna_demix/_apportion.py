"""Whole numbers in given proportions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def apportion(shares: ArrayLike, total: int) -> NDArray[np.int64]:
    """Split a whole number by shares, by largest remainder (Hamilton's method).

    Args:
        shares: Shares (n,), not negative, with a positive sum.
        total: What is split.

    Returns:
        Parts (n,) that sum to ``total``; each is off by less than 1.
    """
    given = np.asarray(shares, dtype=np.float64)
    exact = given / given.sum() * total
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")  # the largest remainder first
    counts[order[: total - int(counts.sum())]] += 1
    return counts
