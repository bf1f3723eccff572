"""From predictions to proposals: the composite of several objectives, and which candidate is next.

Arrays only: ``Y`` is (n, m) with higher better in every column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray


class Composite:
    """One merit for several objectives, higher is better.

    ``"rank"`` is the paper's (section 3.3): the mean over objectives of the percentile rank,
    here the share of a fixed reference set that a score beats, interpolated between its members:
    0 is the worst of the reference set, 1 the best. Beyond either end the merit goes on linearly
    in units of the reference range, so that a candidate better than all others is still told from
    an even better one; what people are told, :meth:`told`, ends there.

    Args:
        how: ``"rank"``, ``"mean"`` (of the raw scores) or weights (m,), a weighted mean of them.
        reference: Scores (n, m) that ranks refer to; NaN rows are left out.

    Raises:
        ValueError: If ``how`` is unknown, or the weights are not m non-negative numbers.
    """

    def __init__(self, how: str | Sequence[float], reference: FloatArray) -> None:
        reference = np.atleast_2d(np.asarray(reference, dtype=float))
        n_objectives = reference.shape[1]
        self._rank = isinstance(how, str) and how == "rank"
        if isinstance(how, str):
            if how not in ("rank", "mean"):
                raise ValueError(f"composite {how!r} is unknown; use 'rank', 'mean' or weights")
            weights = np.ones(n_objectives)
        else:
            weights = np.asarray(how, dtype=float)
        if weights.shape != (n_objectives,) or not np.all(weights >= 0) or not weights.sum() > 0:
            raise ValueError(
                f"composite weights must be {n_objectives} non-negative numbers, one for each "
                f"objective and not all zero; got {how!r}"
            )
        self._weights = weights / weights.sum()
        finite = reference[np.all(np.isfinite(reference), axis=1)]
        self._sorted = np.sort(finite, axis=0)  # (r, m)
        self._ladders = [_ladder(column) for column in self._sorted.T] if self._rank else []

    def __call__(self, Y: FloatArray) -> FloatArray:
        """Merit (n,) of scores (n, m)."""
        return self._merged(Y, beyond=True)

    def told(self, Y: FloatArray) -> FloatArray:
        """The merit (n,) of scores (n, m) as people are told it.

        A rank is a share of the reference set in each objective, and no share is more than all.
        """
        return self._merged(Y, beyond=False)

    def best(self, Y: FloatArray, adjust: Callable[[FloatArray], FloatArray]) -> int:
        """Index of the best of scores (n, m): by what people are told, then by merit.

        Args:
            Y: The scores.
            adjust: Applied to both before they are compared, each (n,).
        """
        merit, told = adjust(self(Y)), adjust(self.told(Y))
        return int(np.lexsort((-np.arange(len(merit)), merit, told))[-1])

    def describe(self) -> dict[str, Any]:
        """Weights (m,) of the objectives and, for ranks, the sorted reference (r, m)."""
        return {"weights": self._weights, "reference": self._sorted if self._rank else None}

    def _merged(self, Y: FloatArray, *, beyond: bool) -> FloatArray:
        Y = np.atleast_2d(np.asarray(Y, dtype=float))
        if self._rank:
            columns = zip(Y.T, self._ladders, strict=True)
            Y = np.stack([_percentile(y, *ladder, beyond=beyond) for y, ladder in columns], axis=1)
        merit: FloatArray = Y @ self._weights
        return merit


def _ladder(reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distinct scores of a sorted reference (r,), and the share of it that each beats."""
    levels, first, counts = np.unique(reference, return_index=True, return_counts=True)
    if len(levels) < 2:
        return levels, np.full(len(levels), 0.5)
    # Ties share their mean rank; the ends are pinned to 0 and 1.
    ranks = (first + (counts - 1) / 2.0) / (len(reference) - 1)
    return levels, (ranks - ranks[0]) / (ranks[-1] - ranks[0])


def _percentile(
    y: FloatArray, levels: FloatArray, ranks: FloatArray, *, beyond: bool
) -> FloatArray:
    """Share (n,) of a reference that is beaten; ``beyond`` its ends it goes on."""
    if len(levels) == 0:
        return np.full(len(y), 0.5)
    if len(levels) == 1:
        side: FloatArray = np.sign(y - levels[0])
        return 0.5 + 0.5 * side
    share: FloatArray = np.interp(y, levels, ranks)
    if beyond:
        past = np.maximum(y - levels[-1], 0.0) - np.maximum(levels[0] - y, 0.0)
        share += past / (levels[-1] - levels[0])
    return share


def pareto_weights(n_objectives: int, rng: np.random.Generator) -> FloatArray:
    """Random trade-off (m,) for one proposal, uniform on the simplex (ParEGO, Knowles 2006)."""
    return rng.dirichlet(np.ones(n_objectives))


def tchebycheff(ranks: FloatArray, weights: FloatArray) -> FloatArray:
    """Augmented Tchebycheff merit (n,) of scores in [0, 1] (n, m), higher is better.

    Unlike a weighted mean it also reaches the hollows of a Pareto front (Knowles 2006, eq. 2).
    """
    loss = (1.0 - ranks) * weights
    total: FloatArray = loss.max(axis=1) + 0.05 * loss.sum(axis=1)
    return -total


def nearest_distance(X: FloatArray, taken: FloatArray) -> FloatArray:
    """Half the L1 distance (n,) from each row of X (n, d) to the nearest row of taken (t, d).

    On the simplex this is the total variation: the share of data that would have to move.
    """
    from scipy.spatial.distance import cdist

    if len(taken) == 0:
        return np.full(len(X), np.inf)
    nearest: FloatArray = 0.5 * cdist(X, taken, "cityblock").min(axis=1)
    return nearest


def best_untaken(
    merit: FloatArray, X: FloatArray, taken: FloatArray, *, min_distance: float
) -> int:
    """Index of the best candidate that keeps its distance from all that is taken.

    Args:
        merit: Merit (n,) of the candidates.
        X: Candidates (n, d).
        taken: Points (t, d) that are evaluated or being evaluated.
        min_distance: Smallest allowed distance, in total variation.

    Returns:
        The index; where every candidate is too close, the one that is farthest away.
    """
    order = np.argsort(-merit, kind="stable")
    start, size = 0, 4  # the first few nearly always hold one
    while start < len(order):
        block = order[start : start + size]
        free = nearest_distance(X[block], taken) >= min_distance
        if free.any():
            return int(block[int(np.argmax(free))])
        start, size = start + size, 4 * size
    return int(np.argmax(nearest_distance(X, taken)))


def expected_merit(merit: FloatArray, success: FloatArray, failure: float) -> FloatArray:
    """Expected merit (n,) of trials that may fail.

    Args:
        merit: Merit (n,) of those that succeed.
        success: Probabilities (n,) of that.
        failure: Merit of a trial that fails.
    """
    expected: FloatArray = failure + success * (merit - failure)
    return expected


def feasible_first(merit: FloatArray, limits: FloatArray) -> FloatArray:
    """Merit (n,) with everything that breaks a limit behind all that does not.

    Args:
        merit: Merit (n,).
        limits: Constraint values (n, c) in comparable units; feasible at or below 0. NaN counts
            as feasible.

    Returns:
        The merit where it is feasible; elsewhere less than any of it, by the violation.
    """
    if limits.shape[1] == 0:
        return merit
    violation = np.nansum(np.maximum(limits, 0.0), axis=1)
    worst = float(merit.min()) if len(merit) else 0.0
    ordered: FloatArray = np.where(violation > 0.0, worst - 1.0 - violation, merit)
    return ordered


def expected_gain(gain: FloatArray, std: FloatArray) -> FloatArray:
    """Expected improvement (n,) of normal variables over 0 (Jones et al. 1998, equation 15).

    Args:
        gain: Means (n,).
        std: Standard deviations (n,); where 0, the gain itself counts if it is positive.
    """
    from scipy.special import ndtr

    z = gain / np.where(std > 0.0, std, 1.0)
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    improvement: FloatArray = np.where(
        std > 0.0, gain * ndtr(z) + std * density, np.maximum(gain, 0.0)
    )
    return improvement
