"""What a trial that was dropped early would have scored on all items.

The first blocks of items may be easier than the rest, so that a mean over them says little beside
full scores. But all trials meet the same blocks in the same order: a trial's place among the
others on the blocks it has scored is its place on all, up to noise. With scores

    s[t, j] = quality[t] + ease[j] + noise

of trial t on block j, both are fitted by least squares to whatever blocks there are, and a full
score follows from the quality by the mean distance between the two in the trials that have both.

Trials that were not raced in blocks are estimated from their last report, see :mod:`.reports`,
those that were screened out from their cheap scores, see :mod:`.screened`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.rows.reports import final_scores
from optuna_demix.search.rows.screened import scores_of_cheap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.history import Arrays

_ITERATIONS = 1000  # few are needed, unless trials share few blocks
_TOLERANCE = 1e-12


def with_estimates(trials: Arrays, mixing: FloatArray) -> tuple[Arrays, FloatArray]:
    """Trials with the scores that pruned ones would have had in the end.

    Args:
        trials: Complete and pruned trials.
        mixing: Matrix (b, m): objectives (n, m) = benchmarks (n, b) @ mixing.

    Returns:
        The trials, less those of which nothing can be said, and the standard errors (n, b) of
        their scores: 0 unless estimated.
    """
    if trials.complete.all():
        return trials, np.zeros_like(trials.Y)
    Y, errors = np.empty_like(trials.Y), np.empty_like(trials.Y)
    for j in range(Y.shape[1]):
        Y[:, j], errors[:, j] = full_scores(trials.B[:, j], trials.Y[:, j])
    if any(trials.reports):  # of the only objective
        Y[:, 0], errors[:, 0] = final_scores(trials.reports, trials.Y[:, 0])
    for j, cheap in enumerate(trials.cheap.T):
        if np.isfinite(cheap).any():
            Y[:, j], errors[:, j] = scores_of_cheap(cheap, Y[:, j])
    V = np.where(trials.complete[:, None], trials.V, Y @ mixing)
    known = trials.complete | np.isfinite(V).all(axis=1)
    return trials._replace(Y=Y, V=V).take(known), errors[known]


def full_scores(blocks: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scores on all items, estimated where only some blocks were scored.

    Args:
        blocks: Score of each trial on each block, (n, B), NaN where it was not scored.
        known: Full score of each trial, (n,), NaN where there is none.

    Returns:
        Full scores (n,), the known ones as they are, NaN where nothing can be said; and the
        standard errors (n,) of the estimated ones, else 0.
    """
    seen = np.isfinite(blocks)  # (n, B)
    both = np.isfinite(known) & seen.any(axis=1)
    missing = np.isnan(known) & seen.any(axis=1)
    scores, errors = known.copy(), np.zeros_like(known)
    if both.any() and missing.any():
        quality, ease = _additive(np.where(seen, blocks, 0.0), seen)
        scores[missing] = quality[missing] + np.mean(known[both] - quality[both])
        left = np.where(seen, blocks - quality[:, None] - ease, 0.0)
        # Degrees of freedom: trials without any block have no quality that was fitted.
        fitted = int(seen.any(axis=1).sum()) + int(seen.any(axis=0).sum()) - 1
        free = max(int(seen.sum()) - fitted, 1)
        count = seen[missing].sum(axis=1)
        # Blocks not scored have noise of their own; once all are scored there is none left.
        unseen = 1.0 - count / len(ease)
        errors[missing] = np.sqrt(np.sum(left**2) / free * unseen / count)
    return scores, errors


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
