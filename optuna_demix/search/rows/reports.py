"""What a trial that a pruner stopped would have scored in the end, from its last report.

Reports of different steps cannot be compared: a loss falls as training goes on. At the step at
which a trial was stopped, those that went on have reported as well, and their final scores are
regressed on what they reported there:

    score = a + b report + noise

by least squares, b being 1 as long as few trials have come that far. The standard error is that of
a new observation, which grows with the distance from the reports of the others: early reports that
say little of the end count for little. Steps are taken from the last to the first, so that trials
which were stopped later stand beside those that were complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray

_SLOPE = 5  # trials from which on the slope is fitted


def final_scores(
    reports: Iterable[Mapping[int, float]], known: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Final scores, estimated where a trial was stopped.

    Args:
        reports: Reports of each trial by step, n of them.
        known: Final score of each trial (n,), NaN where it was stopped.

    Returns:
        Final scores (n,), the known ones as they are, NaN where nothing can be said; and the
        standard errors (n,) of the estimated ones, else 0.
    """
    scores, errors = known.copy(), np.zeros_like(known)
    last = np.array([max(of, default=-1) for of in reports])
    stopped = np.isnan(known)
    for step in sorted({int(step) for step in last[stopped] if step >= 0}, reverse=True):
        at_step = np.array([of.get(step, np.nan) for of in reports])
        further = np.isfinite(scores) & np.isfinite(at_step)
        here = stopped & (last == step)
        if further.any():
            x, y = at_step[further], scores[further]
            # One trial alone tells how far scores rise from here, and not how surely.
            alone = float(np.nanvar(at_step)) if len(x) == 1 else 0.0
            estimate, variance = _regressed(x, y, at_step[here])
            scores[here] = estimate
            errors[here] = np.sqrt(variance + alone + np.mean(errors[further] ** 2))
    return scores, errors


def _regressed(x: FloatArray, y: FloatArray, new: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Predictions (m,) at new x and the variances (m,) of observations there."""
    n, spread = len(x), float(np.sum((x - x.mean()) ** 2))
    is_fitted = n >= _SLOPE and spread > 0.0
    slope = float((x - x.mean()) @ (y - y.mean())) / spread if is_fitted else 1.0
    left = y - y.mean() - slope * (x - x.mean())
    variance = float(left @ left) / max(n - 1 - is_fitted, 1)
    away = (new - x.mean()) ** 2 / spread if is_fitted else np.zeros(len(new))
    estimate = y.mean() + slope * (new - x.mean())
    return estimate, variance * (1.0 + 1.0 / n + away)
