"""Tempered Dirichlet draws around the prior, inside the polytope."""

from __future__ import annotations

import numpy as np

from optuna_demix.mixture.geometry.polytope import Frame
from optuna_demix.mixture.geometry.simplex import Array

# DeMix (arXiv 2602.00747) and its code: alpha = strength * prior^0.7, normalized.
TEMPER = 0.7
STRENGTHS = np.logspace(np.log10(0.5), np.log10(5.0), 15)
# Prior share given at most to a component which has none, so that its weight can be drawn at all;
# shares below the second number are rounding errors of a projected prior, and count as none.
_SMALLEST_PRIOR = 1e-3
_NO_PRIOR = 1e-9
# Draws outside are repeated this often at most, and only while repeating them is worth it.
_ROUNDS = 8
_WORTHWHILE = 0.1
# Rows drawn together: enough to vectorize, few enough to stay in the cache.
_CHUNK = 8192


def sample(frame: Frame, prior: Array, n: int, rng: np.random.Generator) -> Array:
    """Draw mixtures inside the polytope.

    Every weight gets its smallest attainable value; the mass that is left is Dirichlet distributed
    around what is left of the prior. Draws outside are redrawn, and those that stay outside are
    pulled toward a random interior point, to a random fraction of the feasible length.

    Args:
        frame: Geometry of the polytope.
        prior: Center of the draws, a point of the polytope, (K,).
        n: Number of draws.
        rng: Source of randomness.

    Returns:
        Mixtures, (n, K).
    """
    alpha = _concentration(frame, prior)
    out = np.empty((n, len(prior)))
    for first in range(0, n, _CHUNK):
        out[first : first + _CHUNK] = _draw(frame, prior, alpha, min(_CHUNK, n - first), rng)
    return out


def _concentration(frame: Frame, prior: Array) -> Array:
    """Dirichlet parameters for a strength of 1, (K,); 0 for weights which have one value only.

    They sum to 1 in every block of the frame.
    """
    alpha = np.empty(len(prior))
    for block, _ in frame.blocks:
        free = frame.most[block] > frame.least[block]
        share = np.where(free, np.maximum(prior[block] - frame.least[block], 0.0), 0.0)
        share /= max(share.sum(), np.finfo(float).tiny)
        known = share > _NO_PRIOR
        smallest = min(_SMALLEST_PRIOR, share[known].min(initial=1.0))
        tempered = np.where(free, np.where(known, share, smallest) ** TEMPER, 0.0)
        alpha[block] = tempered / max(tempered.sum(), np.finfo(float).tiny)
    return alpha


def _draw(frame: Frame, prior: Array, alpha: Array, n: int, rng: np.random.Generator) -> Array:
    """Draw one chunk, (n, K)."""
    strengths = rng.choice(STRENGTHS, size=n)
    w = _dirichlet(frame, alpha, strengths, rng)
    outside = np.flatnonzero(~frame.holds(w))
    for _ in range(_ROUNDS):
        if not len(outside):
            break
        # A row keeps its strength: flat and peaked mixtures stay as frequent as they were meant.
        w[outside] = _dirichlet(frame, alpha, strengths[outside], rng)
        missed = outside[~frame.holds(w[outside])]
        worthwhile = len(missed) < (1.0 - _WORTHWHILE) * len(outside)
        outside = missed
        if not worthwhile:
            break
    if len(outside):
        anchors = frame.anchors(prior, len(outside), rng)
        w[outside] = frame.pull(w[outside], anchors, rng.random(len(outside)))
    return w


def _dirichlet(frame: Frame, alpha: Array, strengths: Array, rng: np.random.Generator) -> Array:
    """Dirichlet draws of the mass above the smallest attainable weights, (n, K).

    Gamma variables of a small shape underflow; their logarithms do not:
    ``log Gamma(a) = log Gamma(a + 1) + log(U) / a`` (Marsaglia and Tsang, 2000).
    """
    w = np.repeat(frame.least[None, :], len(strengths), axis=0)
    for block, total in frame.blocks:
        free = block[alpha[block] > 0.0]
        if len(free):
            shapes = strengths[:, None] * alpha[free]  # (n, F)
            logs = np.log(rng.standard_gamma(shapes + 1.0))
            logs -= rng.standard_exponential(shapes.shape) / shapes
            logs -= logs.max(axis=1, keepdims=True)
            parts = np.exp(logs)
            mass = max(0.0, total - frame.least[block].sum())
            w[:, free] += parts * (mass / parts.sum(axis=1, keepdims=True))
    return w
