"""What a trial that was dropped early would have scored on all items.

The first blocks of items may be easier than the rest, so that a mean over them says little beside
full scores. But all trials meet the same blocks in the same order: a trial's place among the
others on the blocks it has scored is its place on all, up to noise. With scores

    s[t, j] = quality[t] + ease[j] + noise

of trial t on block j, both are fitted by least squares to whatever blocks there are, and a full
score follows from the quality by the mean distance between the two in the trials that have both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._history import Arrays

    FloatArray = NDArray[np.float64]

_ITERATIONS = 50
_TOLERANCE = 1e-12


def with_estimates(trials: Arrays, mixing: FloatArray) -> Arrays:
    """Trials with the scores that pruned ones would have had on all items.

    Args:
        trials: Complete and pruned trials.
        mixing: Matrix (b, m): objectives (n, m) = benchmarks (n, b) @ mixing.

    Returns:
        The trials, less those of which nothing can be said.
    """
    if trials.complete.all():
        return trials
    columns = [full_scores(trials.B[:, j], trials.Y[:, j]) for j in range(trials.Y.shape[1])]
    Y = np.stack(columns, axis=1)  # (n, b)
    V = np.where(trials.complete[:, None], trials.V, Y @ mixing)
    known = trials.complete | np.isfinite(V).all(axis=1)
    return trials._replace(Y=Y, V=V).take(known)


def full_scores(blocks: FloatArray, known: FloatArray) -> FloatArray:
    """Scores on all items, estimated where only some blocks were scored.

    Args:
        blocks: Score of each trial on each block, (n, B), NaN where it was not scored.
        known: Full score of each trial, (n,), NaN where there is none.

    Returns:
        Full scores (n,), the known ones as they are; NaN where nothing can be said.
    """
    seen = np.isfinite(blocks)  # (n, B)
    both = np.isfinite(known) & seen.any(axis=1)
    missing = np.isnan(known) & seen.any(axis=1)
    result = known.copy()
    if both.any() and missing.any():
        quality = _quality(np.where(seen, blocks, 0.0), seen)
        result[missing] = quality[missing] + np.mean(known[both] - quality[both])
    return result


def _quality(values: FloatArray, seen: NDArray[np.bool_]) -> FloatArray:
    """Least squares fit ``quality[t] + ease[j]`` of the seen values; ease has mean 0."""
    rows = np.maximum(seen.sum(axis=1), 1)
    columns = np.maximum(seen.sum(axis=0), 1)
    quality, ease = np.zeros(len(values)), np.zeros(values.shape[1])
    for _ in range(_ITERATIONS):
        before = quality
        quality = ((values - ease) * seen).sum(axis=1) / rows
        ease = ((values - quality[:, None]) * seen).sum(axis=0) / columns
        ease -= ease.mean()
        if np.abs(quality - before).max() <= _TOLERANCE * max(np.abs(quality).max(), 1.0):
            break
    return quality
