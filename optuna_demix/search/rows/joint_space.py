"""All parameters that are drawn together, as rows of one array: mixtures, then the others.

The others (a learning rate, a merge density) stand in the columns behind the merge weights,
scaled to [0, 1], logarithms and steps undone, categories one-hot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.surrogate._kinds import MANY_SOURCES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace

LEAST_PRIOR = 1e-3  # share of a component the prior does without, where its logarithm is needed
_PINNED = 16  # sets of fixed weights whose spaces are kept: a wrapper fixes the same each time
_TRACE = 1e-9  # weights below it are left by rounding
_NUDGE = 0.005  # size of the moves that tell two otherwise equal proposals apart


class JointSpace:
    """The product of some mixtures and some independent parameters.

    Args:
        spaces: Mixtures; their weights are the first columns, in order.
        others: Distributions of the other parameters, by name.
    """

    def __init__(
        self, spaces: Sequence[MixtureSpace], others: Mapping[str, BaseDistribution]
    ) -> None:
        self.spaces = tuple(spaces)
        self.others = dict(others)
        ends = np.cumsum([len(space.components) for space in self.spaces], dtype=int)
        self._slices = [
            slice(int(end) - len(space.components), int(end))
            for space, end in zip(self.spaces, ends, strict=True)
        ]
        self.n_mixture = int(ends[-1]) if len(ends) else 0
        self._pinned: dict[tuple[tuple[str, float], ...], JointSpace] = {}
        self._transform = None
        if self.others:
            from optuna._transform import _SearchSpaceTransform

            self._transform = _SearchSpaceTransform(
                self.others, transform_log=True, transform_step=True, transform_0_1=True
            )
        self.n_columns = self.n_mixture + (
            0 if self._transform is None else len(self._transform.bounds)
        )

    @property
    def mixture_names(self) -> set[str]:
        """Names of the parameters that are merge weights."""
        return {name for space in self.spaces for name in space.param_names}

    @property
    def free(self) -> NDArray[np.bool_]:
        """Merge weights (K,) that can be more than 0 and are not fixed."""
        parts = [
            (space.max_weights() > 0.0) & (space.max_weights() > space.min_weights())
            for space in self.spaces
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)

    def encode(self, trial: FrozenTrial) -> FloatArray | None:
        """Row (d,) of a trial, or None if it lacks a parameter or has one that does not fit."""
        row = np.empty(self.n_columns)
        for space, columns in zip(self.spaces, self._slices, strict=True):
            weights = space.weights(trial)
            if weights is None or not np.all(np.isfinite(weights)):
                return None
            row[columns] = weights
        tail = self.encode_others(trial.params)
        if tail is None:
            return None
        row[self.n_mixture :] = tail
        return row

    def encode_others(self, params: Mapping[str, Any]) -> FloatArray | None:
        """Columns (d - K,) of the other parameters; None if one is missing or does not fit."""
        if self._transform is None:
            return np.empty(0)
        for name, distribution in self.others.items():
            if name not in params:
                return None
            if not distribution._contains(distribution.to_internal_repr(params[name])):
                return None
        tail: FloatArray = self._transform.transform({name: params[name] for name in self.others})
        return tail

    def contains(self, row: FloatArray) -> bool:
        """Whether the mixtures of a row (d,) lie within their constraints."""
        return all(
            bool(space.contains(row[columns], atol=1e-6))
            for space, columns in zip(self.spaces, self._slices, strict=True)
        )

    def divergence(self, X: FloatArray) -> FloatArray:
        """Kullback-Leibler divergence (n,) of the mixtures of rows (n, d) from their priors, nats.

        A component the prior does without counts as if it had a share of 1e-3 there, so that the
        divergence stays finite.
        """
        total = np.zeros(len(X))
        for space, columns in zip(self.spaces, self._slices, strict=True):
            weights = np.maximum(X[:, columns], 0.0)
            prior = np.maximum(space.prior, LEAST_PRIOR)
            logs = np.log(np.maximum(weights, 1e-300)) - np.log(prior / prior.sum())
            total += np.where(weights > 0.0, weights * logs, 0.0).sum(axis=1)
        return total

    def encode_params(self, params: Mapping[str, Any]) -> FloatArray | None:
        """Row (d,) of a dict of parameters as :meth:`decode` makes it, or None if incomplete."""
        row = np.empty(self.n_columns)
        try:
            for space, columns in zip(self.spaces, self._slices, strict=True):
                row[columns] = [params[name] for name in space.param_names]  # KeyError: incomplete
            if self._transform is not None:
                row[self.n_mixture :] = self._transform.transform(
                    {name: params[name] for name in self.others}
                )
        except (KeyError, TypeError, ValueError):
            return None
        return row if np.all(np.isfinite(row)) else None

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """Parameters of a row (d,), as native Python values inside their distributions.

        Weights of less than 1e-9 are 0, where the constraints allow it.
        """
        params: dict[str, Any] = {}
        for space, columns in zip(self.spaces, self._slices, strict=True):
            weights = _without_traces(space, row[columns])
            params.update(zip(space.param_names, weights.tolist(), strict=True))
        if self._transform is not None:
            params.update(self._transform.untransform(row[self.n_mixture :]))
        return params

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Random rows (n, d)."""
        parts = [space.sample(n, rng) for space in self.spaces]
        if self._transform is not None:
            parts.append(self._harden(rng.random((n, self.n_columns - self.n_mixture))))
        return np.concatenate(parts, axis=1) if parts else np.empty((n, 0))

    def sample_for_start(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Random rows (n, d) for first trials: mixtures of many sources half way to the prior.

        Random mixtures of many sources consist of a few, and are far worse than the prior: nothing
        is learned of what lies about it.
        """
        rows = self.sample(n, rng)
        half = np.full((n, 1), 0.5)
        for space, columns in zip(self.spaces, self._slices, strict=True):
            if len(space) >= MANY_SOURCES:
                prior = np.broadcast_to(space.prior, (n, len(space)))
                rows[:, columns] = space.blend(rows[:, columns], prior, half, rng)
        return rows

    def sample_one(self, rng: np.random.Generator) -> FloatArray:
        """A random row (d,)."""
        row: FloatArray = self.sample(1, rng)[0]
        return row

    def perturb(self, X: FloatArray, scale: float, rng: np.random.Generator) -> FloatArray:
        """Rows (n, d) moved a little; about ``scale`` is the share of data that moves."""
        moved = X.copy()
        for space, columns in zip(self.spaces, self._slices, strict=True):
            moved[:, columns] = space.perturb(X[:, columns], scale, rng)
        if self._transform is not None:
            tail = X[:, self.n_mixture :]
            step = rng.normal(0.0, scale, tail.shape) * (rng.random(tail.shape) < 0.5)
            moved[:, self.n_mixture :] = self._harden(
                np.clip(tail + step, 0.0, 1.0), rng=rng, switch=min(0.5, 2 * scale)
            )
        return moved

    def blend(self, A: FloatArray, B: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Random points (n, d) on the segments from A to B; the others come from A or B."""
        t = rng.random((len(A), 1))
        blended = np.where(t < 0.5, A, B)
        for space, columns in zip(self.spaces, self._slices, strict=True):
            blended[:, columns] = space.blend(A[:, columns], B[:, columns], t, rng)
        return blended

    def nudge(self, row: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The row (d,), moved by less than it matters, so that no two workers draw the same.

        Weights that are zero stay zero, unless only one is not.
        """
        moved = row.copy()
        for space, columns in zip(self.spaces, self._slices, strict=True):
            weights = row[columns]
            shaken = weights * np.exp(_NUDGE * rng.standard_normal(len(weights)))
            shaken = space.project(shaken / shaken.sum())
            if np.array_equal(shaken, weights):
                towards = space.sample(1, rng)[0]
                shaken = space.project((1 - _NUDGE) * weights + _NUDGE * towards)
            moved[columns] = shaken
        return moved

    def project(self, row: FloatArray) -> FloatArray:
        """The row (d,) with each mixture moved to the nearest one that is allowed."""
        moved = row.copy()
        for space, columns in zip(self.spaces, self._slices, strict=True):
            moved[columns] = space.project(row[columns])
        return moved

    def center(self) -> FloatArray:
        """Row (d,) of the priors, the others in the middle of their range."""
        row = np.full(self.n_columns, 0.5)
        for space, columns in zip(self.spaces, self._slices, strict=True):
            row[columns] = space.prior
        row[self.n_mixture :] = self._harden(row[None, self.n_mixture :])[0]
        return row

    def pin(self, fixed: Mapping[str, Any]) -> JointSpace:
        """The same parameters, with the merge weights that are fixed pinned.

        Raises:
            ConfigError: If a fixed value is not one that its parameter can take.
            ConstraintError: If no mixture has these weights.
        """
        for name, value in fixed.items():
            self._check_fixed(name, value)
        weights = {name: float(fixed[name]) for name in fixed if name in self.mixture_names}
        key = tuple(sorted(weights.items()))
        if key not in self._pinned:
            if len(self._pinned) >= _PINNED:
                self._pinned.clear()
            spaces = [self._pin_one(space, weights) for space in self.spaces]
            self._pinned[key] = JointSpace(spaces, self.others)
        return self._pinned[key]

    def _check_fixed(self, name: str, value: Any) -> None:
        from optuna.distributions import CategoricalDistribution

        distribution = self.others.get(name)
        if isinstance(distribution, CategoricalDistribution):
            if value not in distribution.choices:
                raise ConfigError(
                    f"parameter {name!r} is fixed to {value!r}, which is none of its choices "
                    f"{list(distribution.choices)}"
                )
        elif not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(
                f"parameter {name!r} is fixed to {value!r}; give it a finite number or leave it "
                "free"
            )

    @staticmethod
    def _pin_one(space: MixtureSpace, weights: Mapping[str, float]) -> MixtureSpace:
        given = {
            component: weights[name]
            for component, name in zip(space.components, space.param_names, strict=True)
            if name in weights
        }
        for component, weight in given.items():
            if not 0.0 <= weight <= 1.0:
                raise ConstraintError(
                    f"{component!r} is fixed to {weight:g}, but a merge weight lies in [0, 1]"
                )
        return space.pin(given) if given else space

    def impose(self, X: FloatArray, fixed: Mapping[str, Any]) -> FloatArray:
        """Rows (n, d) with the other parameters that are fixed set to their values."""
        given = {name: fixed[name] for name in self.others if name in fixed}
        if not given or self._transform is None or len(X) == 0:
            return X
        template = self._transform.untransform(X[0, self.n_mixture :])
        encoded = self._transform.transform({**template, **given})
        X = X.copy()
        for index, name in enumerate(self.others):
            if name in given:
                columns = self._transform.column_to_encoded_columns[index]
                X[:, self.n_mixture + columns] = encoded[columns]
        return X

    def _harden(
        self,
        tail: FloatArray,
        *,
        rng: np.random.Generator | None = None,
        switch: float = 0.0,
    ) -> FloatArray:
        """Make category columns one-hot, switching to a random category now and then."""
        if self._transform is None:
            return tail
        from optuna.distributions import CategoricalDistribution

        tail = tail.copy()
        for index, distribution in enumerate(self.others.values()):
            if not isinstance(distribution, CategoricalDistribution):
                continue
            columns = self._transform.column_to_encoded_columns[index]
            chosen = tail[:, columns].argmax(axis=1)
            if rng is not None:
                switched = rng.random(len(tail)) < switch
                chosen = np.where(switched, rng.integers(len(columns), size=len(tail)), chosen)
            tail[:, columns] = np.eye(len(columns))[chosen]
        return tail


def _without_traces(space: MixtureSpace, weights: FloatArray) -> FloatArray:
    """Weights (K,) without those that only rounding has left, where that is allowed."""
    traces = (weights != 0.0) & (np.abs(weights) < _TRACE) & (np.asarray(space.lower) <= 0.0)
    if not traces.any():
        return weights
    cleared = np.where(traces, 0.0, weights)
    largest = int(np.argmax(cleared))
    cleared[largest] = min(cleared[largest] + weights[traces].sum(), float(space.upper[largest]))
    is_inside = bool(space.contains(cleared)) or not space.contains(weights)
    return cleared if is_inside else weights
