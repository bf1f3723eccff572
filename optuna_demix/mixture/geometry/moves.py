"""Random moves from given mixtures to near ones, inside the polytope."""

from __future__ import annotations

import numpy as np

from optuna_demix.mixture.geometry.polytope import Frame
from optuna_demix.mixture.geometry.simplex import Array, Mask, project_box

# How often a move is dense, transfers mass between two weights, or takes a weight out.
_PROBABILITIES = (0.4, 0.4, 0.2)
# A weight is taken out only if it is within this many scales of its lower bound.
_REACH = 3.0


def perturb(frame: Frame, hub: Array, w: Array, scale: Array, rng: np.random.Generator) -> Array:
    """Move mixtures at random, staying inside.

    Args:
        frame: Geometry of the polytope.
        hub: A point of the polytope to pull toward where a move leads out of it, (K,).
        w: Points of the polytope, (n, K).
        scale: Standard deviation of a weight's move, (n,).
        rng: Source of randomness.

    Returns:
        Points of the polytope, (n, K).
    """
    kinds = rng.choice(len(_PROBABILITIES), size=len(w), p=_PROBABILITIES)
    moved = np.empty_like(w)
    for kind, move in enumerate((_shake, _transfer, _take_out)):
        rows = kinds == kind
        moved[rows] = move(frame, w[rows], scale[rows, None], rng)
    outside = np.flatnonzero(~frame.holds(moved))
    if len(outside):
        anchors = frame.anchors(hub, len(outside), rng)
        moved[outside] = frame.pull(moved[outside], anchors)
    return moved


def _shake(frame: Frame, w: Array, scale: Array, rng: np.random.Generator) -> Array:
    """Move all weights by Gaussian noise in the plane of the simplex, (n, K)."""
    noise = scale * rng.standard_normal(w.shape)
    return project_box(w + noise, frame.lower, frame.upper)


def _transfer(frame: Frame, w: Array, scale: Array, rng: np.random.Generator) -> Array:
    """Move mass from one weight to another, (n, K)."""
    rows = np.arange(len(w))
    giver = _choose(w > frame.lower, rng)
    room = w < frame.upper
    room[rows, giver] = False
    taker = _choose(room, rng)
    # Where nothing can give or take, the amount comes out as 0 and the point stays.
    amount = np.minimum(
        np.abs(scale[:, 0] * rng.standard_normal(len(w))),
        np.minimum(w[rows, giver] - frame.lower[giver], frame.upper[taker] - w[rows, taker]),
    )
    moved = w.copy()
    moved[rows, giver] -= amount
    moved[rows, taker] += amount
    return project_box(moved, frame.lower, frame.upper)


def _take_out(frame: Frame, w: Array, scale: Array, rng: np.random.Generator) -> Array:
    """Set one small weight to its lower bound and share its mass out in proportion, (n, K).

    Rows without such a weight transfer mass instead.
    """
    above = w - frame.lower
    others = frame.upper.sum() - frame.upper + frame.lower  # (K,), most the sum can then be
    small = (above > 0) & (above <= _REACH * scale) & (others >= 1.0)
    rows = np.flatnonzero(small.any(axis=1))
    moved = _transfer(frame, w, scale, rng)
    if len(rows):
        out = _choose(small[rows], rng)
        index = np.arange(len(rows))
        upper = np.repeat(frame.upper[None, :], len(rows), axis=0)
        upper[index, out] = frame.lower[out]
        rest = above[rows]
        freed = rest[index, out].copy()
        rest[index, out] = 0.0
        total = rest.sum(axis=1)
        growth = np.where(total > 0, freed / np.where(total > 0, total, 1.0), 0.0)
        moved[rows] = project_box(frame.lower + rest * (1.0 + growth[:, None]), frame.lower, upper)
    return moved


def _choose(allowed: Mask, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Choose one allowed column a row at random, (n,)."""
    keys = np.where(allowed, rng.random(allowed.shape), -1.0)
    chosen: np.ndarray[tuple[int], np.dtype[np.intp]] = keys.argmax(axis=1)
    return chosen
