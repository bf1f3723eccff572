"""`MixtureSpace`: the mixtures a search may try."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optuna_demix.attributes import WEIGHTS_KEY
from optuna_demix.errors import ConfigError, ConstraintError, InputError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture import _limits as limits
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture.constraints import Constraint, Group, polytope_of
from optuna_demix.mixture.geometry import moves as _moves
from optuna_demix.mixture.geometry import projection as _projection
from optuna_demix.mixture.geometry import sampling as _sampling
from optuna_demix.mixture.geometry.min_weight import LeastWeight
from optuna_demix.mixture.geometry.polytope import Frame, Polytope
from optuna_demix.mixture.geometry.simplex import Array, Mask, settle

if TYPE_CHECKING:
    import optuna

# How far weights may miss a constraint, or their sum 1, and still count as inside.
_INSIDE = 1e-9
_DIGITS = 12


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MixtureSpace:
    """The polytope of allowed merge weights inside the simplex. Immutable, picklable, comparable.

    A point is a vector of merge weights ``w`` (K,), one a component, which sum to 1. The data
    shares it stands for are ``r = w @ composition`` (D,). Bounds apply to single weights, caps to
    single shares, groups to sums of either.

    Example:
        >>> import numpy as np
        >>> space = MixtureSpace(
        ...     ["web", "code", "math"],
        ...     tokens={"web": 8e9, "code": 1.5e9, "math": 5e8},
        ...     budget=1e10,
        ...     max_epochs=4,
        ... )
        >>> w = space.sample(1000, np.random.default_rng(0))
        >>> w.shape, bool((w[:, 2] <= 0.2).all())
        ((1000, 3), True)

    Args:
        components: Names of the components, K of them, distinct.
        prior: Natural weight of each component, a mapping or a sequence, normalised here. Default:
            the tokens of the datasets which bear the components' names if all do, else uniform.
        lower: Least merge weight: a number for all, a mapping with gaps (0) or a sequence.
        upper: Largest merge weight, likewise (gaps are 1). Equal bounds pin a weight.
        min_weight: Least weight of a component that takes part: every weight is 0 or at least
            this. In [0, 1].
        composition: What each component was trained on: a mapping component -> dataset -> share or
            an array (K, D). Rows sum to 1. Default: component i is dataset i alone.
        tokens: Tokens in each dataset, a mapping with gaps or a sequence (D,).
        budget: Tokens of the planned training run.
        max_epochs: How often a dataset may be repeated in that run, a number for all or a mapping
            with gaps. Caps the share of dataset d at ``max_epochs * tokens / budget``.
        groups: Bounds on sums of merge weights or data shares: `Group` or mappings of its fields.
        datasets: Names of the datasets, D of them. Default: those named in ``composition``, or
            the components.
        name: Prefix ``"<name>/"`` of the parameters, for studies which hold several mixtures.

    Attributes:
        components: Names of the components, K.
        datasets: Names of the datasets, D.
        prior: Natural weights, projected on the polytope if they lie outside, (K,).
        lower: Least merge weights as given, (K,).
        upper: Largest merge weights as given, (K,).
        min_weight: Least weight of a component that takes part; 0 if there is no such minimum.
        composition: Share of each dataset in each component's training data, (K, D).
        caps: Largest data shares, infinite where there is no cap, (D,).
        tokens: Tokens in each dataset, NaN where unknown, (D,); None if none were given.
        budget: Tokens of the planned training run, or None.
        groups: The groups.
        name: The prefix' name, or None.
        param_names: Names of the Optuna parameters, in the order of the components, K.

    Raises:
        ConfigError: If an argument is malformed; the message names the entry.
        ConstraintError: If no mixture satisfies all constraints. The message names a minimal set
            of them which exclude each other.
    """

    components: tuple[str, ...]
    datasets: tuple[str, ...]
    prior: Array
    lower: Array
    upper: Array
    min_weight: float
    composition: Array
    caps: Array
    tokens: Array | None
    budget: float | None
    groups: tuple[Group, ...]
    name: str | None
    param_names: tuple[str, ...]

    # The arguments once read: whoever calls the constructor with them gets an equal space.
    _spec: Mapping[str, Any]
    _raw_prior: Array
    _constraints: tuple[Constraint, ...]
    _polytope: Polytope
    _least: LeastWeight | None

    def __init__(
        self,
        components: Sequence[str],
        *,
        prior: PerName | None = None,
        lower: float | PerName = 0.0,
        upper: float | PerName = 1.0,
        min_weight: float = 0.0,
        composition: Mapping[str, Mapping[str, float]] | npt.ArrayLike | None = None,
        tokens: PerName | None = None,
        budget: float | None = None,
        max_epochs: float | Mapping[str, float] | None = None,
        groups: Iterable[Group | Mapping[str, Any]] = (),
        datasets: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        """Read and check the arguments; see the class."""
        names = arguments.names_of(components, "components")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ConfigError(f"name must be a non-empty string or None, got {name!r}")
        shares, sets = arguments.composition_of(composition, names, datasets)
        table = _frozen(shares)
        low = arguments.bounds_of(lower, names, "lower bound", 0.0)
        high = arguments.bounds_of(upper, names, "upper bound", 1.0)
        least = arguments.number(min_weight, "min_weight", least=0.0, most=1.0)
        limits.check_minimum(least, names, high)
        usage = limits.Usage.parse(sets, tokens, budget, max_epochs)
        parsed = tuple(Group.parse(group) for group in groups)
        limits.check_groups(parsed, names, sets)

        constraints = (
            *limits.bound_constraints(names, low, high),
            *limits.cap_constraints(sets, table, usage),
            *limits.group_constraints(parsed, names, sets, table),
        )
        masses = limits.prior_masses(prior, usage.tokens, names)
        spec = {
            "components": names,
            "prior": tuple(masses.tolist()),
            "lower": tuple(low.tolist()),
            "upper": tuple(high.tolist()),
            "min_weight": least,
            "composition": table,
            "tokens": usage.tokens or None,
            "budget": usage.budget,
            "max_epochs": usage.max_epochs or None,
            "groups": parsed,
            "datasets": sets,
            "name": name,
        }
        fields: dict[str, Any] = {
            "components": names,
            "datasets": sets,
            "lower": _frozen(low),
            "upper": _frozen(high),
            "min_weight": least,
            "composition": table,
            "caps": _frozen(usage.caps),
            "tokens": _frozen([usage.tokens.get(d, np.nan) for d in sets])
            if usage.tokens
            else None,
            "budget": usage.budget,
            "groups": parsed,
            "name": name,
            "param_names": names if name is None else tuple(f"{name}/{c}" for c in names),
            "_spec": spec,
            "_raw_prior": _frozen(masses / masses.sum()),
            "_constraints": constraints,
            "_polytope": polytope_of(constraints, len(names)),
        }
        fields["_least"] = LeastWeight(fields["_polytope"], least) if least > 0 else None
        self.__dict__.update(fields)
        if self._least is not None and self._least.support is None:
            raise ConstraintError(
                f"no mixture within the constraints has every weight 0 or at least min_weight "
                f"({least:g}); lower it"
            )
        self.__dict__["prior"] = _frozen(self._nearest(self._raw_prior))

    # Geometry

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw mixtures around the prior, all of them inside.

        Tempered Dirichlet draws as in DeMix (arXiv 2602.00747): ``alpha = strength * p^0.7``,
        normalised, with strengths from 0.5 to 5. Draws outside the polytope are redrawn a few
        times and then pulled inside, towards a random interior point.

        Args:
            n: Number of mixtures.
            rng: Source of randomness.

        Returns:
            Merge weights, (n, K).

        Raises:
            InputError: If ``n`` is negative.
        """
        if n < 0:
            raise InputError(f"the number of mixtures to sample must not be negative, got {n}")
        drawn = _sampling.sample(self._frame, self.prior, n, rng)
        return drawn if self._least is None else self._least.mend(drawn, rng)

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
            InputError: If ``w`` has the wrong shape or is not finite, or ``scale`` is negative.
        """
        points = self._points(w, finite=True)
        scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(points))
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise InputError(f"the scale of a move must be finite and not negative, got {scale!r}")
        inside = _projection.project(self._frame, points)
        moved = _moves.perturb(self._frame, self.prior, inside, scales, rng)
        if self._least is not None:
            moved = self._least.mend(moved, rng)
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
            InputError: If a or b has the wrong shape or is not finite.
        """
        start, end = self._points(a, finite=True), self._points(b, finite=True)
        part = np.asarray(t, dtype=np.float64).reshape(-1, 1)
        blended = settle((1.0 - part) * start + part * end, *self._box)
        return blended if self._least is None else self._least.mend(blended, rng)

    def project(self, w: npt.ArrayLike) -> Array:
        """Euclidean projection on the polytope; with a ``min_weight``, on a near support of it.

        Args:
            w: Any finite points, (K,) or (n, K).

        Returns:
            The nearest merge weights, of the shape of ``w``.

        Raises:
            InputError: If ``w`` has the wrong shape or holds NaN or infinities.
        """
        points = self._points(w, finite=True)
        nearest = _projection.project(self._frame, points)
        if self._least is not None:
            nearest = self._least.project(nearest)
        return nearest.reshape(np.shape(w))

    def contains(self, w: npt.ArrayLike, *, atol: float = _INSIDE) -> bool | Mask:
        """Tell which merge weights sum to 1 and satisfy every bound, cap and group.

        Args:
            w: Merge weights, (K,) or (n, K).
            atol: How far a constraint may be missed.

        Returns:
            A bool, or (n,) of them. Weights which are not finite lie outside.

        Raises:
            InputError: If ``w`` has the wrong shape.
        """
        points = self._points(w, finite=False)
        finite = np.all(np.isfinite(points), axis=1)
        points = np.where(finite[:, None], points, 0.0)
        inside = finite & (np.abs(points.sum(axis=1) - 1.0) <= atol)
        inside &= np.all(points >= -atol, axis=1)
        rows, bounds = self._rows
        inside &= np.all(points @ rows.T <= bounds + atol, axis=1)
        if self._least is not None:
            inside &= self._least.holds(points, atol)
        return bool(inside[0]) if np.ndim(w) == 1 else inside

    def data_shares(self, w: npt.ArrayLike) -> Array:
        """Return the data shares ``w @ composition`` of merge weights, (D,) or (n, D).

        Raises:
            InputError: If ``w`` has the wrong shape.
        """
        shares: Array = self._points(w, finite=False) @ self.composition
        return shares[0] if np.ndim(w) == 1 else shares

    @functools.cached_property
    def center(self) -> Array:
        """A point of the polytope's relative interior, or near it with a ``min_weight``, (K,)."""
        return _frozen(self._nearest(self._settled(self._frame.centre)))

    def min_weights(self) -> Array:
        """Smallest attainable value of each merge weight, (K,)."""
        return _frozen(self._frame.least)

    def max_weights(self) -> Array:
        """Largest attainable value of each merge weight, (K,)."""
        return _frozen(self._frame.most)

    def pin(self, fixed: Mapping[str, float]) -> MixtureSpace:
        """Return this space with some merge weights fixed.

        Args:
            fixed: Component -> weight.

        Raises:
            ConfigError: If a component is unknown or a weight is no number in [0, 1].
            ConstraintError: If no mixture has these weights.
        """
        lower, upper = self.lower.copy(), self.upper.copy()
        for component, value in arguments.entries(fixed, self.components, "pin").items():
            i = self.components.index(component)
            weight = arguments.number(value, f"pin of {component!r}", least=0.0, most=1.0)
            nearest = float(np.clip(weight, lower[i], upper[i]))
            if abs(weight - nearest) > _INSIDE:
                side = "upper" if weight > nearest else "lower"
                raise ConstraintError(
                    f"{component!r} cannot be pinned to {weight:g}: "
                    f"its {side} bound is {nearest:g}"
                )
            if 0.0 < nearest < self.min_weight:
                raise ConstraintError(
                    f"{component!r} cannot be pinned to {weight:g}: min_weight is "
                    f"{self.min_weight:g}; pin it to 0 or at least that"
                )
            lower[i] = upper[i] = nearest
        return MixtureSpace(**{**self._spec, "lower": lower, "upper": upper})

    # Optuna

    @property
    def weights_key(self) -> str:
        """The user attribute which holds a trial's true weights when its parameters do not."""
        return WEIGHTS_KEY if self.name is None else f"{WEIGHTS_KEY}/{self.name}"

    def distributions(self) -> dict[str, optuna.distributions.FloatDistribution]:
        """Return the Optuna distribution of every parameter, in the components' order."""
        from optuna.distributions import FloatDistribution

        ends = zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        return {
            param: FloatDistribution(low, high)
            for param, (low, high) in zip(self.param_names, ends, strict=True)
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, float]:
        """Suggest a mixture, one float parameter a component, under any sampler.

        Values which lie inside are the weights. A sampler that knows no simplex proposes others:
        these are normalised, projected, and the weights so found are written to the trial as the
        user attribute `weights_key`.

        Args:
            trial: A trial, or anything with its ``suggest_float`` and ``set_user_attr``.

        Returns:
            Component -> merge weight; the weights sum to 1.
        """
        ends = zip(self.lower.tolist(), self.upper.tolist(), strict=True)
        raw = [
            trial.suggest_float(param, low, high)
            for param, (low, high) in zip(self.param_names, ends, strict=True)
        ]
        values = np.array(raw, dtype=np.float64)
        inside = self.contains(values)
        w = self._settled(values) if inside else self._mended(values)
        weights = dict(zip(self.components, w.tolist(), strict=True))
        if not inside:
            trial.set_user_attr(self.weights_key, weights)
        return weights

    def weights(self, trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> Array | None:
        """Read the true merge weights of a trial.

        Args:
            trial: A trial, finished or not.

        Returns:
            Merge weights, (K,): the user attribute if there is one, else the parameters. They
            may lie outside this space if the trial was made for another one. None if the trial
            does not tell the weight of every component, or gives weight to unknown ones.
        """
        written = trial.user_attrs.get(self.weights_key)
        if written is not None:
            return self._as_written(written)
        params = trial.params
        if any(param not in params for param in self.param_names):
            return None
        values = np.array([params[param] for param in self.param_names], dtype=np.float64)
        if not np.isfinite(values).all():
            return None
        if abs(values.sum() - 1.0) <= _INSIDE and (values >= -_INSIDE).all():
            return _settle_one(values, np.zeros(len(self)), np.ones(len(self)))
        # A trial which is being suggested right now: its attribute will say the same.
        return self._mended(values)

    # Identity

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        capped = zip(self.datasets, self.caps, strict=True)
        groups = [
            {
                "name": group.name,
                "members": sorted(group.members),
                "lower": _rounded(group.lower),
                "upper": _rounded(group.upper),
                "of": group.of,
            }
            for group in sorted(self.groups, key=lambda group: group.name)
        ]
        minimum = {"min_weight": _rounded(self.min_weight)} if self.min_weight > 0 else {}
        return {
            "components": list(self.components),
            "datasets": list(self.datasets),
            "prior": _rounded(self._raw_prior),
            "lower": _rounded(self.lower),
            "upper": _rounded(self.upper),
            "composition": _rounded(self.composition),
            "caps": {dataset: _rounded(cap) for dataset, cap in capped if np.isfinite(cap)},
            "groups": groups,
            "name": self.name,
            **minimum,
        }

    @functools.cached_property
    def _json(self) -> str:
        return json.dumps(self._description, sort_keys=True)

    def fingerprint(self) -> dict[str, Any]:
        """Describe the space by JSON-able values, rounded to 12 digits; equal if spaces are."""
        description: dict[str, Any] = json.loads(self._json)
        return description

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same mixtures, prior and parameters."""
        if not isinstance(other, MixtureSpace):
            return NotImplemented
        return self._json == other._json

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self._json)

    def __len__(self) -> int:
        """Number of components, K."""
        return len(self.components)

    def __repr__(self) -> str:
        """Show components, prior and the constraints that are more than the simplex."""
        parts = [f"{list(self.components)}"]
        parts.append("prior=[" + ", ".join(f"{p:.3g}" for p in self.prior) + "]")
        parts += [c for c in dict.fromkeys(c.text for c in self._constraints)]
        if self.min_weight > 0:
            parts.append(f"min_weight={self.min_weight:g}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"MixtureSpace({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: arrays come back read-only, geometry is found anew."""
        return _rebuild, (dict(self._spec),)

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
            raise InputError("merge weights must be numbers, in the components' order") from None
        if points.ndim not in (1, 2) or points.shape[-1] != len(self):
            raise InputError(
                f"merge weights need shape ({len(self)},) or (n, {len(self)}), got {points.shape}"
            )
        points = np.atleast_2d(points)
        if finite and not np.isfinite(points).all():
            row, column = np.argwhere(~np.isfinite(points))[0]
            raise InputError(
                f"merge weights must be finite, got {points[row, column]} "
                f"for {self.components[column]!r}"
            )
        return points

    def _nearest(self, w: Array) -> Array:
        """Return the point itself if it lies inside, else its projection, (K,)."""
        nearest = self._settled(w) if self.contains(w) else self.project(w)
        if self._least is not None:
            nearest = self._least.project(nearest[None])[0]  # crumbs that count as 0 become 0
        return nearest

    def _settled(self, w: Array) -> Array:
        return _settle_one(w, *self._box)

    def _mended(self, values: Array) -> Array:
        """Turn parameters which are no mixture into the weights they stand for, (K,)."""
        values = np.maximum(values, 0.0)
        total = values.sum()
        return self._nearest(values / total if total > 0 else self.prior)

    def _as_written(self, written: Any) -> Array | None:
        """Read the user attribute, (K,); None if it is not about exactly these components."""
        if not isinstance(written, Mapping):
            return None
        try:
            values = np.array([written[c] for c in self.components], dtype=np.float64)
            foreign = sum(abs(float(v)) for c, v in written.items() if c not in self.components)
        except (KeyError, TypeError, ValueError):
            return None
        known = bool(np.isfinite(values).all()) and foreign <= _INSIDE
        return values if known else None


def _rebuild(spec: dict[str, Any]) -> MixtureSpace:
    return MixtureSpace(**spec)


def _settle_one(w: Array, lower: Array, upper: Array) -> Array:
    settled: Array = settle(w[None, :], lower, upper)[0]
    return settled


def _frozen(values: npt.ArrayLike) -> Array:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def _rounded(values: Any) -> Any:
    """Round to 12 significant digits, nested lists for arrays; -0.0 becomes 0.0."""
    if np.ndim(values):
        return [_rounded(value) for value in values]
    return float(f"{float(values):.{_DIGITS}g}") + 0.0
