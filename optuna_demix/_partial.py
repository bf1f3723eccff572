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

    FloatArray = NDArray[np.float64]

_ITERATIONS = 50
_TOLERANCE = 1e-12


def full_scores(blocks: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scores on all items, estimated where only some blocks were scored.

    Args:
        blocks: Score of each trial on each block, (n, B), NaN where it was not scored.
        known: Full score of each trial, (n,), NaN where there is none.

    Returns:
        Full scores (n,), the known ones as they are, and the standard errors of the estimated
        ones, (n,), 0 for known ones. NaN where nothing can be said.
    """
    seen = np.isfinite(blocks)  # (n, B)
    whole = np.isfinite(known)
    errors = np.where(whole, 0.0, np.nan)
    if whole.all() or not whole.any() or not seen[whole].any():
        return known.copy(), errors
    quality, ease = _additive(np.where(seen, blocks, 0.0), seen)
    both = whole & seen.any(axis=1)
    estimated = ~whole & seen.any(axis=1)
    result = known.copy()
    result[estimated] = quality[estimated] + np.mean(known[both] - quality[both])
    residuals = np.where(seen, blocks - quality[:, None] - ease, 0.0)
    n, b = blocks.shape
    free = max(int(seen.sum()) - n - b + 1, 1)
    noise = np.sqrt(np.sum(residuals**2) / free)
    counts = seen.sum(axis=1)
    # The blocks still missing would have had their own noise; all of them together have none.
    missing = np.maximum(1.0 - counts / b, 0.0)
    errors[estimated] = noise * np.sqrt(missing[estimated] / counts[estimated])
    return result, errors


def _additive(values: FloatArray, seen: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
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
    return quality, ease
