"""Exact operations on the box-bounded simplex ``{w : sum(w) = 1, lower <= w <= upper}``.

Everything is vectorized over rows and needs numpy only. ``lower`` and ``upper`` are (K,) or (n, K)
and must leave the set non-empty; the callers see to that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
# Sums nearer to 1 than this are left alone, so that a point already on the simplex keeps its bits.
SUM_TOLERANCE = 1e-13
# Coordinates are limited to this magnitude before a projection: beyond it, 1 drowns in rounding.
_LARGEST = 1e12


def settle(w: Array, lower: Array, upper: Array) -> Array:
    """Remove rounding: clip into the box, then give the missing mass to the roomiest coordinate.

    Args:
        w: Points which miss the set by rounding errors only, (n, K).
        lower: Lower bounds, (K,) or (n, K).
        upper: Upper bounds, (K,) or (n, K).

    Returns:
        A new (n, K) array, exactly inside the box, whose rows sum to 1 as nearly as it allows.
    """
    w = w.clip(lower, upper)
    # One round is nearly always enough; each further one follows a coordinate that became full.
    for _ in range(w.shape[1]):
        residual = 1.0 - w.sum(axis=1)  # (n,)
        rows = np.flatnonzero(np.abs(residual) > SUM_TOLERANCE)
        if not len(rows):
            break
        low = np.broadcast_to(lower, w.shape)[rows]
        high = np.broadcast_to(upper, w.shape)[rows]
        missing, given = residual[rows], w[rows]
        room = np.where(missing[:, None] > 0, high - given, given - low)
        columns = room.argmax(axis=1)
        places = np.arange(len(rows)), columns
        moved = given[places] + missing
        w[rows, columns] = moved.clip(low[places], high[places])
    return w


def project_box(x: Array, lower: Array, upper: Array) -> Array:
    """Euclidean projection on the box-bounded simplex.

    The projection is ``clip(x - t, lower, upper)`` for the ``t`` at which it sums to 1. That sum
    is a decreasing, piecewise linear function of ``t`` with a kink at every ``x - upper`` and
    ``x - lower``, so sorting the 2K kinks gives ``t`` without iterations.

    Args:
        x: Any finite points, (n, K).
        lower: Lower bounds, (K,) or (n, K).
        upper: Upper bounds, (K,) or (n, K).

    Returns:
        The nearest points of the set, (n, K).
    """
    # Plain indices and differences: on few rows, numpy's helpers cost more than the arithmetic.
    x = x.clip(-_LARGEST, _LARGEST)
    rows = np.arange(len(x))
    kinks = np.concatenate([x - upper, x - lower], axis=1)  # (n, 2K)
    order = kinks.argsort(axis=1)
    kinks = kinks[rows[:, None], order]
    # A coordinate leaves its upper bound at one kink and reaches its lower one at the other.
    slopes = np.where(order < x.shape[1], -1.0, 1.0).cumsum(axis=1)  # (n, 2K)
    top = np.broadcast_to(upper, x.shape).sum(axis=1, keepdims=True)  # (n, 1)
    drops = (slopes[:, :-1] * (kinks[:, 1:] - kinks[:, :-1])).cumsum(axis=1)
    sums = np.concatenate([top, top + drops], axis=1)  # (n, 2K), non-increasing
    # The segment before the first kink at or below 1 holds t.
    before = rows, (sums > 1.0).sum(axis=1).clip(1, kinks.shape[1] - 1) - 1
    slope = np.minimum(slopes[before], -1.0)
    t = kinks[before] - np.maximum(sums[before] - 1.0, 0.0) / slope  # (n,)
    # One Newton step on the active set removes what the cumulative sums have rounded away.
    shifted = x - t[:, None]
    inner = ((shifted > lower) & (shifted < upper)).sum(axis=1, keepdims=True)
    error = shifted.clip(lower, upper).sum(axis=1, keepdims=True) - 1.0
    shifted -= error / np.maximum(inner, 1)
    return settle(shifted, lower, upper)


def extreme_points(
    objectives: Array, lower: Array, upper: Array, ties: Array | None = None
) -> Array:
    """Vertices of the box-bounded simplex which maximize linear objectives (fractional knapsack).

    Args:
        objectives: One objective a row, (n, K).
        lower: Lower bounds, (K,).
        upper: Upper bounds, (K,).
        ties: Which of equal coefficients comes first, the smallest, (n, K).

    Returns:
        The maximizers, (n, K).
    """
    if ties is None:
        order = np.argsort(-objectives, axis=1)
    else:
        order = np.lexsort((ties, -objectives), axis=1)
    rooms = (upper - lower)[order]  # (n, K), best coordinate first
    before = np.cumsum(rooms, axis=1) - rooms
    filled = np.clip(1.0 - lower.sum() - before, 0.0, rooms)
    points = np.empty_like(objectives)
    np.put_along_axis(points, order, filled, axis=1)
    return settle(points + lower, lower, upper)
