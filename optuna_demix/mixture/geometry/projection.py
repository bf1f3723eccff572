"""Euclidean projection onto the polytope."""

from __future__ import annotations

import numpy as np

from optuna_demix.mixture.geometry.polytope import Frame
from optuna_demix.mixture.geometry.simplex import Array, project_box, settle

# How far the solution on the active set may break an inactive constraint and still be taken.
_EXACT = 1e-11
# Longest distance projected in one step, and the most steps.
_FAR = 100.0
_STEPS = 50
# Unit normals whose component across all the others is shorter than this count as dependent.
_DEPENDENT = 1e-9


def project(frame: Frame, x: Array) -> Array:
    """Return the nearest points of the polytope, (n, K).

    Points inside stay where they are. The others are first projected on the box-bounded simplex,
    all in one pass; where that breaks no other constraint it is the answer. The rest are solved
    one by one as least-distance problems.

    Args:
        frame: Geometry of the polytope.
        x: Finite points, (n, K).
    """
    if frame.is_box:
        return project_box(x, frame.lower, frame.upper)
    on_simplex = np.abs(x.sum(axis=1) - 1.0) <= 1e-12
    inside = on_simplex & frame.holds(x, strict=False)
    nearest = np.empty_like(x)
    nearest[inside] = settle(x[inside], frame.lower, frame.upper)
    outside = np.flatnonzero(~inside)
    nearest[outside] = project_box(x[outside], frame.lower, frame.upper)
    for row in outside[~frame.holds(nearest[outside])]:
        nearest[row] = _project_one(frame, x[row])
    return nearest


def _project_one(frame: Frame, x: Array) -> Array:
    """Project one point, (K,), in steps if it lies far away.

    The solver loses digits with the square of the distance. The nearest point of the polytope is
    also the nearest one to every point on the way from it to x: steps of a bounded length lead to
    it, and as they are longer than the polytope is wide, the first few do.
    """
    point = frame.center
    for _ in range(_STEPS):
        step = x - point
        length = float(np.linalg.norm(step))
        previous, point = point, _least_distance(frame, point + step * min(1.0, _FAR / length))
        if length <= _FAR or np.abs(point - previous).max() <= _EXACT:
            break
    return point


def _least_distance(frame: Frame, x: Array) -> Array:
    """Project one point, (K,), by least-distance programming.

    In coordinates of the polytope's own plane the task is ``min |z|`` subject to
    ``normals @ z <= slacks``: the problem LDP of Lawson and Hanson, "Solving Least Squares
    Problems" (1974), chapter 23, solved through non-negative least squares. The active set found
    there is then solved once more directly, for full precision.
    """
    from scipy.optimize import nnls

    normals, offsets = frame.halfspaces
    start = frame.basis.T @ (x - frame.center)  # (dimension,)
    slacks = offsets - normals @ start  # (M,)
    z = np.zeros_like(start)
    if len(start):
        duals = np.concatenate([-normals.T, -slacks[None, :]])  # (dimension + 1, M)
        target = np.append(np.zeros_like(start), 1.0)
        multipliers, _ = nnls(duals, target, maxiter=30 * len(slacks))
        residual = duals @ multipliers - target
        z = -residual[:-1] / residual[-1]
        exact = _shortest(normals[multipliers > 0], slacks[multipliers > 0])
        if exact is not None and (normals @ exact - slacks).max() <= _EXACT:
            z = exact
    found = (frame.center + frame.basis @ (start + z))[None, :]
    nearest = settle(found, frame.lower, frame.upper)
    if not frame.holds(nearest, strict=False)[0]:  # the solver's error, should it make one
        nearest = frame.pull(found, frame.center[None, :])
    point: Array = nearest[0]
    return point


def _shortest(normals: Array, slacks: Array) -> Array | None:
    """Shortest z with ``normals @ z = slacks``, (dimension,); None for dependent normals."""
    q, r = np.linalg.qr(normals.T)  # (dimension, a), (a, a)
    if len(slacks) > len(r) or (np.abs(np.diag(r)) < _DEPENDENT).any():
        return None
    z: Array = q @ np.linalg.solve(r.T, slacks)
    return z
