"""Score surfaces over mixtures with known values, for the tests of the surrogate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

PEAK = np.array([0.4, 0.3, 0.2, 0.1])  # best mixture of the quadratic


def mixtures(n: int, k: int, rng: np.random.Generator) -> FloatArray:
    """Mixtures (n, k) between even and nearly pure."""
    strengths = rng.choice([0.5, 1.0, 2.0], size=n)
    return np.stack([rng.dirichlet(np.full(k, strength)) for strength in strengths])


def quadratic(w: FloatArray) -> FloatArray:
    """Smooth in the weights, as the loss of a merged model is; optimum inside (4 components)."""
    away = w - PEAK
    return -(away**2) @ np.array([1.0, 2.0, 1.0, 3.0]) - 0.5 * away[:, 0] * away[:, 1]


def scaling(w: FloatArray) -> FloatArray:
    """Power law of two shares: steep where a share is near zero."""
    return -((w[:, 0] + 0.03) ** -0.3) - 0.5 * (w[:, 2] + 0.03) ** -0.3


def exponential(w: FloatArray) -> FloatArray:
    """The log-linear data mixing law, averaged over two losses."""
    return -np.exp(w @ np.array([-3.0, 0.5, -1.0, 0.0])) - np.exp(-2.0 * w[:, 1] - w[:, 3])


SURFACES: tuple[Callable[[FloatArray], FloatArray], ...] = (quadratic, scaling, exponential)


def scores(w: FloatArray) -> FloatArray:
    """Scores (n, 3) of mixtures (n, 4) on every surface."""
    return np.stack([surface(w) for surface in SURFACES], axis=1)
