"""The feasible polytope and its geometry: vertices, center, implied equalities, rays.

A `Polytope` is the set as given. Its `Frame` is what sampling and projection work on: the same set
with every implied equality found, and every other row tightened by a hair so that rounding never
carries a point over a constraint.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from optuna_demix.mixture.geometry import linear as _linear
from optuna_demix.mixture.geometry.simplex import (
    Array,
    Index,
    Mask,
    extreme_points,
    project_box,
    settle,
)

# A row whose slack exceeds this nowhere is an equality; a weight whose range does not is fixed.
# Above the error of the linear programs, and no more than what a constraint may be missed by.
_EQUALITY = 1e-9
# What the rows are tightened by at most: far more than the rounding of a ray.
_TIGHTENING = 1e-10
# How far a point may miss an equality of the frame and still lie in it.
_ON_EQUALITY = 1e-12
# Components of a direction below this are rounding noise.
_NOISE = 1e-13
# Random directions per component: each gives one vertex for the anchors.
_CORNERS = 2
# Vertices mixed into an anchor, and the weight of the center, which keeps it off the faces.
_MIXED_CORNERS = 3
_CENTER_WEIGHT = 0.1


@dataclass(frozen=True, eq=False)
class Polytope:
    """``{w : sum(w) = 1, lower <= w <= upper, rows @ w <= bounds}``, known not to be empty.

    Attributes:
        lower: Lower bounds of the weights, (K,).
        upper: Upper bounds of the weights, (K,).
        rows: Left-hand sides, (m, K); m may be 0.
        bounds: Right-hand sides, (m,).
    """

    lower: Array
    upper: Array
    rows: Array
    bounds: Array

    @functools.cached_property
    def frame(self) -> Frame:
        """The geometry, found by up to 4K + m linear programs on first use."""
        return _frame_of(self)


@dataclass(frozen=True, eq=False)
class Frame:
    """The working geometry of a polytope.

    Attributes:
        lower: Lower bounds, (K,); equal to ``upper`` where the constraints leave one value only.
        upper: Upper bounds, (K,).
        rows: The rows which are not equalities, (m', K).
        bounds: Their right-hand sides, tightened, (m',).
        limits: Their right-hand sides as given, (m',).
        equalities: The rows which hold with equality everywhere, (e, K).
        levels: Their values, (e,).
        corners: Vertices in random directions, (V, K).
        center: A point of the relative interior, (K,).
        least: Smallest attainable value of each weight, (K,).
        most: Largest attainable value of each weight, (K,).
    """

    lower: Array
    upper: Array
    rows: Array
    bounds: Array
    limits: Array
    equalities: Array
    levels: Array
    corners: Array
    center: Array
    least: Array
    most: Array

    @property
    def is_box(self) -> bool:
        """Whether the bounds of the single weights are the only constraints."""
        return not len(self.rows) and not len(self.equalities)

    @functools.cached_property
    def basis(self) -> Array:
        """Orthonormal basis of the directions in which the polytope extends, (K, dimension)."""
        k = len(self.center)
        fixed = np.eye(k)[self.lower == self.upper]
        normals = np.concatenate([np.ones((1, k)), self.equalities, fixed])  # (e', K)
        _, values, right = np.linalg.svd(normals)
        rank = int((values > 1e-9).sum())
        return np.ascontiguousarray(right[rank:].T)

    @functools.cached_property
    def blocks(self) -> list[tuple[Index, float]]:
        """Weights whose sum the constraints fix, and the sum: disjoint sets that cover all.

        An equality over a plain sum, such as that of a phase, makes a set. The weights of none
        are the last one; without equalities they are the only one.
        """
        left = np.ones(len(self.center), dtype=bool)
        found = []
        for row, level in zip(self.equalities, self.levels, strict=True):
            members = np.flatnonzero(row)
            size = row[members[0]] if len(members) else 0.0
            if size and np.all(row[members] == size) and left[members].all():
                found.append((members, float(level / size)))
                left[members] = False
        if left.any():
            rest = 1.0 - sum(total for _, total in found)
            found.append((np.flatnonzero(left), rest))
        return found

    @functools.cached_property
    def projector(self) -> Array | None:
        """Projector onto these directions, (K, K); None if differences of points need none."""
        return None if self.is_box else self.basis @ self.basis.T

    @functools.cached_property
    def halfspaces(self) -> tuple[Array, Array]:
        """Inequalities ``normals @ y <= offsets`` for ``w = center + basis @ y``, of unit normals.

        Returns:
            Normals, (M, dimension), and offsets, (M,).
        """
        free = np.flatnonzero(self.lower < self.upper)
        axes = np.eye(len(self.center))[free]
        sides = np.concatenate([axes, -axes, self.rows])  # (2F + m', K)
        ends = np.concatenate([self.upper[free], -self.lower[free], self.bounds])
        normals = sides @ self.basis
        lengths = np.linalg.norm(normals, axis=1)
        kept = lengths > 1e-9
        offsets = np.maximum(ends - sides @ self.center, 0.0)
        return normals[kept] / lengths[kept, None], offsets[kept] / lengths[kept]

    def holds(self, w: Array, *, strict: bool = True) -> Mask:
        """Tell which points of the simplex lie in the polytope.

        Args:
            w: Points whose rows sum to 1, (n, K).
            strict: Hold the rows to the tightened bounds instead of the given ones.

        Returns:
            One truth value a point, (n,).
        """
        inside = np.all((w >= self.lower) & (w <= self.upper), axis=1)
        if len(self.rows):
            bounds = self.bounds if strict else self.limits
            inside &= np.all(w @ self.rows.T <= bounds, axis=1)
        if len(self.equalities):
            missed = np.abs(w @ self.equalities.T - self.levels)
            inside &= np.all(missed <= _ON_EQUALITY, axis=1)
        return np.asarray(inside)

    def anchors(self, hub: Array, n: int, rng: np.random.Generator) -> Array:
        """Draw random points of the relative interior around a point of the polytope.

        Args:
            hub: The point which is mixed with random corners, (K,).
            n: Number of points.
            rng: Source of randomness.

        Returns:
            Points, (n, K).
        """
        chosen = rng.integers(len(self.corners), size=(_MIXED_CORNERS, n))
        parts = rng.standard_exponential((_MIXED_CORNERS + 1, n)) + 1e-12
        parts *= (1.0 - _CENTER_WEIGHT) / parts.sum(axis=0)  # uniform on the simplex, scaled
        points: Array = _CENTER_WEIGHT * self.center + parts[0][:, None] * hub
        for corner, part in zip(chosen, parts[1:], strict=True):
            points += part[:, None] * self.corners[corner]
        return points

    def pull(self, w: Array, anchors: Array, fraction: Array | float = 1.0) -> Array:
        """Move points along the segment to their anchors until they lie in the polytope.

        Args:
            w: Points of the simplex, (n, K).
            anchors: Points of the polytope, (n, K) or (1, K).
            fraction: Part of the feasible length to keep, from the anchor, (n,); 1 stops at the
                boundary, or at ``w`` where that is inside.

        Returns:
            Points of the polytope, (n, K).
        """
        steps = w - anchors
        if self.projector is not None:
            steps = steps @ self.projector
        ends = np.where(steps > 0, self.upper, self.lower) - anchors
        still = np.abs(steps) <= _NOISE
        lengths = (ends / np.where(still, 1.0, steps) + np.where(still, np.inf, 0.0)).min(axis=1)
        if len(self.rows):
            speeds = steps @ self.rows.T  # (n, m')
            slacks = np.maximum(self.bounds - anchors @ self.rows.T, 0.0)
            ahead = speeds > _NOISE
            times = np.where(ahead, slacks / np.where(ahead, speeds, 1.0), np.inf)
            lengths = np.minimum(lengths, times.min(axis=1))
        lengths = np.clip(lengths, 0.0, 1.0) * fraction  # (n,)
        return settle(anchors + lengths[:, None] * steps, self.lower, self.upper)


def _frame_of(polytope: Polytope) -> Frame:
    k = len(polytope.lower)
    axes = np.eye(k)
    # Both ends of every weight's range, the points farthest behind each row, and corners in
    # directions without preference: axes leave ties, which solvers break by the order of weights.
    ends = _extremes(polytope, np.concatenate([axes, -axes, -polytope.rows]))  # (2K + m, K)
    # A fixed seed: the geometry of a space is a property of the space, not of a study's seed.
    directions = np.random.default_rng(0).standard_normal((_CORNERS * k, k))
    corners = _extremes(polytope, directions)  # (V, K)
    points = np.concatenate([ends, corners])
    # Their mean has slack in every constraint that leaves any.
    center = np.clip(points.mean(axis=0), polytope.lower, polytope.upper)
    least = np.maximum(points.min(axis=0), polytope.lower)
    most = np.minimum(points.max(axis=0), polytope.upper)
    fixed = most - least <= _EQUALITY
    if len(polytope.rows):
        slack = (polytope.bounds - points @ polytope.rows.T).max(axis=0)  # (m,)
        equal = slack <= _EQUALITY
    else:
        equal = np.zeros(0, dtype=bool)
    # A box alone needs no care: its projection and its rays keep every bound exactly.
    care = fixed if len(polytope.rows) else np.zeros_like(fixed)
    lower = np.where(care, center, polytope.lower)
    upper = np.where(care, center, polytope.upper)
    rows, limits = polytope.rows[~equal], polytope.bounds[~equal]
    # The center must keep some of its slack.
    tightening = np.clip((limits - rows @ center) / 2, 0.0, _TIGHTENING)
    frame = Frame(
        lower=lower,
        upper=upper,
        rows=rows,
        bounds=limits - tightening,
        limits=limits,
        equalities=polytope.rows[equal],
        levels=polytope.rows[equal] @ center,
        corners=corners,
        center=center,
        least=np.where(care, center, least),
        most=np.where(care, center, most),
    )
    # The solver's corners touch the rows as given: into the frame with them.
    return dataclasses.replace(frame, corners=frame.pull(corners, center[None, :]))


def _extremes(polytope: Polytope, objectives: Array) -> Array:
    """Vertices which maximize the objectives, (n, K) for (n, K).

    Rarely, a polytope as thin as the solver's tolerance loses some; one point is always returned.
    """
    limits = (polytope.rows, polytope.bounds, polytope.lower, polytope.upper)
    if not len(polytope.rows):
        return extreme_points(objectives, polytope.lower, polytope.upper)
    # What maximizes within the bounds alone and happens to keep the rows needs no solver. Among
    # equals a random vertex does so more often than the first one.
    ties = np.random.default_rng(1).random(objectives.shape)
    points = extreme_points(objectives, polytope.lower, polytope.upper, ties)
    broken = np.any(points @ polytope.rows.T > polytope.bounds, axis=1)
    points[broken] = _linear.maximize(objectives[broken], *limits)
    points = points[~np.isnan(points).any(axis=1)]
    if not len(points):
        points = _linear.least_violation(*limits)[1][None]
    return project_box(points, polytope.lower, polytope.upper)
