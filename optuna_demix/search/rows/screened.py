"""What a trial that was screened out would have scored, from what stands for its texts.

The likelihood of the right answers orders mixtures much as the texts do. Where both are known, the
score is regressed on the cheap one: with both standardized,

    score = b cheap + noise,

b by least squares, drawn towards 1 as by two trials and not negative: the direction is known
beforehand. The standard error is that of a new observation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.surrogate._data import center_scale
from optuna_demix.surrogate._prior_mean import Line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

LEAST = 2
"""Trials with both scores from which on others are estimated."""


def scores_of_cheap(cheap: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scores, estimated where there is only a cheap one.

    Args:
        cheap: Cheap score of each trial (n,), NaN where there is none.
        known: Score of each trial (n,), NaN where it is not known.

    Returns:
        Scores (n,), the known ones as they are, NaN where nothing can be said; and the standard
        errors (n,) of the estimated ones, else 0.
    """
    estimates, error = predicted(cheap, known)
    missing = np.isnan(known) & np.isfinite(estimates)
    return np.where(missing, estimates, known), np.where(missing, error, 0.0)


def predicted(cheap: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What the cheap scores (n,) say of every score, and the standard errors (n,)."""
    both: NDArray[np.bool_] = np.isfinite(cheap) & np.isfinite(known)
    if both.sum() < LEAST:
        return np.full(len(cheap), np.nan), np.zeros(len(cheap))
    center, scale = center_scale(known[both])
    middle, spread = center_scale(cheap[both])
    u = (cheap - middle) / (spread or 1.0)
    z = (known[both] - center) / (scale or 1.0)
    line = Line(u[both], z)
    left = z - line(u[both])
    variance = float(left @ left) / max(len(left) - 2, 1)
    error = scale * np.sqrt(variance * (1.0 + line.variance(u)))
    return center + scale * line(u), error
