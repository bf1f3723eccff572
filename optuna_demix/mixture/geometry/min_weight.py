"""Weights that are 0 or at least a minimum: finitely many faces of the polytope, not one.

A component of a thousandth of the mixture costs memory and a data loader, and its effect is too
small to be measured. Which components take part, the support, is a choice; given it, the others
are 0 and the rest is a polytope again.
"""

from __future__ import annotations

import functools

import numpy as np

from optuna_demix.mixture.geometry import linear as _linear
from optuna_demix.mixture.geometry import projection as _projection
from optuna_demix.mixture.geometry.polytope import Polytope
from optuna_demix.mixture.geometry.simplex import Array, Mask, project_box

# Points of the set that stand in for draws which cannot be brought inside quickly.
_STAND_INS = 8
# Violation up to which the linear program of a support counts as solvable.
_SOLVABLE = 1e-10


class MinWeight:
    """A polytope of mixtures, of which only those count whose weights are 0 or at least a minimum.

    Args:
        polytope: The mixtures without this condition; lower bounds are 0 or at least ``least``.
        least: The minimum of each weight, in [0, 1], (K,).
    """

    def __init__(self, polytope: Polytope, least: Array) -> None:
        self._polytope = polytope
        self.least = least
        self._forced = polytope.lower > 0.0
        self._frames = functools.lru_cache(maxsize=256)(self._face)

    def holds(self, w: Array, atol: float) -> Mask:
        """Tell which points have no weight strictly between 0 and the minimum, (n,)."""
        whole = (w <= atol) | (w >= self.least - atol)
        return np.asarray(whole.all(axis=1))

    @functools.cached_property
    def support(self) -> Mask | None:
        """Some support (K,) that leaves a mixture, or None if there is none."""
        if len(self._rounded):
            return np.asarray(self._rounded[0] > 0.0)
        return self._nearest_support(self._polytope.frame.center)

    def mend(self, w: Array, rng: np.random.Generator) -> Array:
        """Bring many points of the polytope inside quickly, (n, K).

        A weight below half of the minimum becomes 0, one above it the minimum, and the others
        make room. Where that breaks a cap or a group, another point of the batch stands in.
        """
        mended, inside = self._round(w)
        if not inside.all():
            good = mended[inside] if inside.any() else self._stand_ins
            mended[~inside] = good[rng.integers(len(good), size=int((~inside).sum()))]
        return mended

    def project(self, w: Array) -> Array:
        """Bring points of the polytope to near points inside, (n, K).

        As ``mend`` where that suffices; elsewhere the support nearest in total variation is
        found by a mixed-integer program, and the point projected on its face.
        """
        mended, inside = self._round(w)
        for row in np.flatnonzero(~inside):
            support = self._nearest_support(w[row])
            if support is None:  # the solver's doubt where the constraints leave hardly anything
                support = self.support
            assert support is not None  # checked when the space was made
            face = self._frames(support.tobytes())
            mended[row] = _projection.project(face.frame, w[row : row + 1])[0]
        return mended

    def _round(self, w: Array) -> tuple[Array, Mask]:
        """Points (n, K) with rounded supports, and which of them (n,) are inside the polytope."""
        frame = self._polytope.frame
        small = (w > 0.0) & (w < self.least)
        mended = w.copy()
        inside = np.ones(len(w), dtype=bool)
        rows = np.flatnonzero(small.any(axis=1))
        if not len(rows):
            return mended, inside
        points = w[rows]
        able = self._polytope.upper >= self.least
        support = ((points >= self.least / 2) | self._forced) & able
        support = self._fitting(points, support, able)
        low = np.where(support, np.maximum(self._polytope.lower, self.least), 0.0)
        high = np.where(support, self._polytope.upper, 0.0)
        possible = (low.sum(axis=1) <= 1.0) & (high.sum(axis=1) >= 1.0)
        points[possible] = project_box(points[possible], low[possible], high[possible])
        mended[rows] = points
        inside[rows] = possible & frame.holds(points, strict=False)
        return mended, inside

    def _fitting(self, w: Array, support: Mask, able: Mask) -> Mask:
        """Supports (n, K) with small weights left out, or large ones added, until they fit."""
        low = np.maximum(self._polytope.lower, self.least)
        index = np.arange(len(w))
        for _ in range(w.shape[1]):
            crowded = (low * support).sum(axis=1) > 1.0
            bare = (self._polytope.upper * support).sum(axis=1) < 1.0
            if not (crowded | bare).any():
                break
            out = np.where(support & ~self._forced, w, np.inf).argmin(axis=1)
            into = np.where(~support & able, w, -1.0).argmax(axis=1)
            support[index[crowded], out[crowded]] = False
            support[index[bare], into[bare]] = True
        return support

    @functools.cached_property
    def _rounded(self) -> Array:
        """The center and the corners of the polytope where rounding keeps them inside, (n, K)."""
        frame = self._polytope.frame
        rounded, inside = self._round(np.concatenate([frame.center[None], frame.corners]))
        return rounded[inside]

    @functools.cached_property
    def _stand_ins(self) -> Array:
        """Points inside, at least 8, (n, K)."""
        if len(self._rounded) >= _STAND_INS:
            return self._rounded
        rng = np.random.default_rng(0)  # a property of the space, not of a study's seed
        k = len(self._forced)
        return self.project(
            _projection.project(self._polytope.frame, rng.dirichlet(np.ones(k), _STAND_INS))
        )

    def _face(self, support: bytes) -> Polytope:
        """The polytope of one support."""
        chosen = np.frombuffer(support, dtype=bool)
        return Polytope(
            np.where(chosen, np.maximum(self._polytope.lower, self.least), 0.0),
            np.where(chosen, self._polytope.upper, 0.0),
            self._polytope.rows,
            self._polytope.bounds,
        )

    def _nearest_support(self, w: Array) -> Mask | None:
        """The support (K,) that holds the point nearest to w (K,) in total variation, or None.

        A mixed-integer linear program in x (the point), z (its support) and t >= x - w: as both
        points sum to 1, the weights that grow do so by half of the total variation.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        k = len(w)
        one, none = np.eye(k), np.zeros((k, k))
        low = np.maximum(self._polytope.lower, self.least)
        rows = self._polytope.rows
        constraints = [
            LinearConstraint(np.concatenate([np.ones(k), np.zeros(2 * k)])[None], 1.0, 1.0),
            LinearConstraint(np.hstack([one, -np.diag(self._polytope.upper), none]), ub=0.0),
            LinearConstraint(np.hstack([one, -np.diag(low), none]), lb=0.0),
            LinearConstraint(np.hstack([one, none, -one]), ub=w),
        ]
        if len(rows):
            padded = np.hstack([rows, np.zeros((len(rows), 2 * k))])
            constraints.append(LinearConstraint(padded, ub=self._polytope.bounds))
        cost = np.concatenate([np.zeros(2 * k), np.ones(k)])
        bounds = Bounds(
            np.concatenate([np.zeros(k), self._forced.astype(float), np.zeros(k)]),
            np.concatenate([np.ones(2 * k), np.full(k, np.inf)]),
        )
        while True:
            found = milp(
                cost,
                integrality=np.repeat([0, 1, 0], k),
                bounds=bounds,
                constraints=constraints,
            )
            if found.x is None:
                return None
            support: Mask = found.x[k : 2 * k] > 0.5
            if self._is_solvable(support):
                return support
            # The solver allows errors that this package does not: any other support, then.
            signs = np.where(support, -1.0, 1.0)
            cut = np.concatenate([np.zeros(k), signs, np.zeros(k)])
            constraints.append(LinearConstraint(cut[None], lb=1.0 - support.sum()))

    def _is_solvable(self, support: Mask) -> bool:
        """Whether the face of a support (K,) holds a point."""
        face = self._face(support.tobytes())
        if face.lower.sum() > 1.0 + _SOLVABLE or face.upper.sum() < 1.0 - _SOLVABLE:
            return False
        if not len(face.rows):
            return True
        return (
            _linear.least_violation(face.rows, face.bounds, face.lower, face.upper)[0] <= _SOLVABLE
        )
