"""`Region`: the allowed merge weights as a set of points to draw, move and project."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture._specification import Specification, read_only
from optuna_demix.mixture.constraints import Constraint, check_minimum, polytope_of
from optuna_demix.mixture.geometry import moves as _moves
from optuna_demix.mixture.geometry import projection as _projection
from optuna_demix.mixture.geometry import sampling as _sampling
from optuna_demix.mixture.geometry.min_weight import MinWeight
from optuna_demix.mixture.geometry.polytope import Frame, Polytope
from optuna_demix.mixture.geometry.simplex import Array, Mask, settle

# How far weights may miss a constraint, or their sum 1, and still count as inside.
INSIDE = 1e-9


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Region:
    """A polytope of merge weights inside the simplex, perhaps with a minimum weight.

    Attributes:
        components: Names of the components, K.
        prior: Natural weights, projected on the polytope if they lie outside, (K,).
        min_weight: Least weight of a component that takes part; 0 if there is no such minimum.
    """

    components: tuple[str, ...]
    prior: Array
    min_weight: float

    _constraints: tuple[Constraint, ...]
    _polytope: Polytope
    _minimum: MinWeight | None

    def _enclose(self, given: Specification, *, is_checked: bool) -> None:
        """Take the limits, and find out whether they leave any mixture.

        Args:
            given: The arguments.
            is_checked: Whether they, or wider ones, were compared with the minimum before.

        Raises:
            ConstraintError: If they leave none, or keep a component below the minimum.
        """
        constraints = given.constraints()
        polytope = polytope_of(constraints, len(given.components))
        least = given.least_weights
        minimum = MinWeight(polytope, least) if least.any() else None
        self.__dict__.update(
            components=given.components,
            min_weight=given.min_weight,
            _constraints=constraints,
            _polytope=polytope,
            _minimum=minimum,
        )
        if minimum is not None:
            if not is_checked:
                check_minimum(least, given.components, polytope.frame.most)
            if minimum.support is None:
                raise ConstraintError(
                    f"no mixture within the constraints has every weight 0 or at least min_weight "
                    f"({least[least > 0].min():g}); lower it"
                )
        self.__dict__["prior"] = read_only(self._nearest(given.prior))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw mixtures around the prior, all of them inside.

        Tempered Dirichlet draws as in DeMix (arXiv 2602.00747): ``alpha = strength * p^0.7``,
        normalized, with strengths from 0.5 to 5. Draws outside the polytope are redrawn a few
        times and then pulled inside, toward a random interior point.

        Args:
            n: Number of mixtures.
            rng: Source of randomness.

        Returns:
            Merge weights, (n, K).

        Raises:
            ConfigError: If ``n`` is negative.
        """
        if n < 0:
            raise ConfigError(f"the number of mixtures to sample must not be negative, got {n}")
        drawn = _sampling.sample(self._frame, self.prior, n, rng)
        return drawn if self._minimum is None else self._minimum.mend(drawn, rng)

    def perturb(self, w: npt.ArrayLike, scale: npt.ArrayLike, rng: np.random.Generator) -> Array:
        """Move mixtures at random, all of them staying inside.

        A move shakes all weights, transfers mass between two of them, or sets a small weight to
        its lower bound.

        Args:
            w: Merge weights, (K,) or (n, K); points outside are projected first.
            scale: Standard deviation of a weight's move, one for all or (n,).
            rng: Source of randomness.

        Returns:
            Merge weights of the shape of ``w``.

        Raises:
            ConfigError: If ``w`` has the wrong shape or is not finite, or ``scale`` is negative.
        """
        points = self._points(w, finite=True)
        scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(points))
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise ConfigError(
                f"the scale of a move must be finite and not negative, got {scale!r}"
            )
        inside = _projection.project(self._frame, points)
        moved = _moves.perturb(self._frame, self.prior, inside, scales, rng)
        if self._minimum is not None:
            moved = self._minimum.mend(moved, rng)
        return moved.reshape(np.shape(w))

    def blend(
        self, a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike, rng: np.random.Generator
    ) -> Array:
        """Points on the segments from mixtures to others, all of them inside.

        Args:
            a: Merge weights, (n, K), all inside.
            b: Merge weights, (n, K), all inside.
            t: How far to go from a to b, in [0, 1], (n,) or (n, 1).
            rng: Source of randomness, used only with a ``min_weight``.

        Returns:
            Merge weights, (n, K).

        Raises:
            ConfigError: If a or b has the wrong shape or is not finite, or t is outside [0, 1].
        """
        start, end = self._points(a, finite=True), self._points(b, finite=True)
        part = np.asarray(t, dtype=np.float64).reshape(-1, 1)
        if not ((part >= 0.0) & (part <= 1.0)).all():
            raise ConfigError(f"the part t of the way must be in [0, 1], got {t!r}")
        blended = settle((1.0 - part) * start + part * end, *self._box)
        return blended if self._minimum is None else self._minimum.mend(blended, rng)

    def project(self, w: npt.ArrayLike) -> Array:
        """Euclidean projection on the polytope; with a ``min_weight``, on a near support of it.

        Args:
            w: Any finite points, (K,) or (n, K).

        Returns:
            The nearest merge weights, of the shape of ``w``.

        Raises:
            ConfigError: If ``w`` has the wrong shape or holds NaN or infinities.
        """
        points = self._points(w, finite=True)
        nearest = _projection.project(self._frame, points)
        if self._minimum is not None:
            nearest = self._minimum.project(nearest)
        return nearest.reshape(np.shape(w))

    def contains(self, w: npt.ArrayLike, *, atol: float = INSIDE) -> bool | Mask:
        """Tell which merge weights sum to 1 and satisfy every bound, cap and group.

        Args:
            w: Merge weights, (K,) or (n, K).
            atol: How far a constraint may be missed.

        Returns:
            A bool, or (n,) of them. Weights which are not finite lie outside.

        Raises:
            ConfigError: If ``w`` has the wrong shape.
        """
        points = self._points(w, finite=False)
        finite = np.all(np.isfinite(points), axis=1)
        points = np.where(finite[:, None], points, 0.0)
        inside = finite & (np.abs(points.sum(axis=1) - 1.0) <= atol)
        inside &= np.all(points >= -atol, axis=1)
        rows, bounds = self._rows
        inside &= np.all(points @ rows.T <= bounds + atol, axis=1)
        if self._minimum is not None:
            inside &= self._minimum.holds(points, atol)
        return bool(inside[0]) if np.ndim(w) == 1 else inside

    def broken(self, w: npt.ArrayLike) -> list[str]:
        """Tell in words which constraints some merge weights (K,) break; empty if none.

        Raises:
            ConfigError: If ``w`` has the wrong shape or is not finite.
        """
        point = self._points(w, finite=True)[0]
        sums = self._rows[0] @ point
        found = {
            constraint.text: f"{constraint.text} ({constraint.told(value):.6g} given)"
            for constraint, value in zip(self._constraints, sums, strict=True)
            if value > constraint.bound + INSIDE
        }
        if self._minimum is not None and not self._minimum.holds(point[None], INSIDE)[0]:
            least = self._minimum.least
            small = np.flatnonzero((point > INSIDE) & (point < least - INSIDE))
            given = ", ".join(f"{self.components[i]!r} {point[i]:.6g}" for i in small)
            found["min_weight"] = f"min_weight {least[small].min():g} ({given} given)"
        return list(found.values())

    @property
    def inequalities(self) -> tuple[Constraint, ...]:
        """Bounds, caps and groups as inequalities; ``min_weight`` and the simplex stand beside."""
        return self._constraints

    @functools.cached_property
    def center(self) -> Array:
        """A point of the polytope's relative interior, or near it with a ``min_weight``, (K,)."""
        return read_only(self._nearest(self._settled(self._frame.center)))

    def min_weights(self) -> Array:
        """Smallest attainable value of each merge weight, (K,)."""
        return read_only(self._frame.least)

    def max_weights(self) -> Array:
        """Largest attainable value of each merge weight, (K,)."""
        return read_only(self._frame.most)

    def __len__(self) -> int:
        """Number of components, K."""
        return len(self.components)

    # Helpers

    @property
    def _frame(self) -> Frame:
        return self._polytope.frame

    @property
    def _box(self) -> tuple[Array, Array]:
        return self._polytope.lower, self._polytope.upper

    @functools.cached_property
    def _rows(self) -> tuple[Array, Array]:
        """All constraints as ``rows @ w <= bounds``, (M, K) and (M,)."""
        rows = np.array([c.row for c in self._constraints]).reshape(-1, len(self))
        return rows, np.array([c.bound for c in self._constraints], dtype=np.float64)

    def _points(self, w: npt.ArrayLike, *, finite: bool) -> Array:
        """Read (K,) or (n, K) weights as (n, K)."""
        try:
            points = np.asarray(w, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError("merge weights must be numbers, in the components' order") from None
        if points.ndim not in (1, 2) or points.shape[-1] != len(self):
            raise ConfigError(
                f"merge weights need shape ({len(self)},) or (n, {len(self)}), got {points.shape}"
            )
        points = np.atleast_2d(points)
        if finite and not np.isfinite(points).all():
            row, column = np.argwhere(~np.isfinite(points))[0]
            raise ConfigError(
                f"merge weights must be finite, got {points[row, column]} "
                f"for {self.components[column]!r}"
            )
        return points

    def _nearest(self, w: Array) -> Array:
        """Return the point itself if it lies inside, else its projection, (K,)."""
        nearest = self._settled(w) if self.contains(w) else self.project(w)
        if self._minimum is not None:
            nearest = self._minimum.project(nearest[None])[0]  # weights that count as 0 become 0
        return nearest

    def _settled(self, w: Array) -> Array:
        settled: Array = settle(w[None], *self._box)[0]
        return settled
