"""The noise of a trial where it matters: among the best. Arrays only: no study, no storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.proposals.acquisition import feasible_first

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.proposals.fit import Fit

_SHARE = 0.25  # of the trials
_LEAST = 8  # trials that a variance is estimated from


def noise_near_best(fit: Fit, merit: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Standard deviation (m,) of an objective's score about its prediction, near the best.

    It is that of the quarter of the trials which is best by held-out prediction: chosen by their
    scores, lucky ones would be among them. A surrogate that misses steep slopes far from the
    optimum, such as those of a learning rate that diverges, has errors there that are no noise;
    counted in, searches ended before they had begun.

    Args:
        fit: The fit.
        merit: Merit (n,) of objective scores (n, m), higher is better.
    """
    mixing = fit.targets.mixing
    held_out = fit.surrogate.held_out_  # (n, b)
    if np.isnan(held_out).any():
        held_out = np.where(np.isnan(held_out), fit.surrogate.predict(fit.trials.X), held_out)
    ranked = feasible_first(merit(held_out @ mixing), fit.trials.C)
    best = np.zeros(len(ranked), dtype=bool)
    n = max(_LEAST, int(np.ceil(_SHARE * len(ranked))))
    best[np.argsort(-ranked, kind="stable")[:n]] = True
    noise: FloatArray = np.sqrt(fit.surrogate.noise_among(best) ** 2 @ mixing**2)
    return noise
