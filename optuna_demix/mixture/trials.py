"""Merge weights as parameters of Optuna trials, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optuna_demix._transaction import one_transaction
from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture.geometry.simplex import SUM_TOLERANCE, Array, settle
from optuna_demix.mixture.region import INSIDE

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from optuna_demix.mixture.parameters import ParameterSpace

# Weights are written by hand: what rounding to six decimals breaks is mended.
_ROUNDED = 1e-6


def suggest(space: ParameterSpace, trial: optuna.trial.BaseTrial) -> dict[str, float]:
    """Suggest a mixture; see `MixtureSpace.suggest`."""
    ends = zip(space.lower.tolist(), space.upper.tolist(), strict=True)
    with one_transaction(trial):
        raw = [
            trial.suggest_float(param, low, high)
            for param, (low, high) in zip(space.param_names, ends, strict=True)
        ]
    for param, value in zip(space.param_names, raw, strict=True):
        if not -INSIDE <= value < np.inf:
            raise ConfigError(
                f"parameter {param!r} is {value:g}, and a merge weight is finite and at least 0; "
                "MixtureSpace.enqueue checks the weights it queues"
            )
    values = np.array(raw, dtype=np.float64)
    inside = bool(space.contains(values))
    w = settle(values[None], space.lower, space.upper)[0] if inside else _mended(space, values)
    weights = dict(zip(space.components, w.tolist(), strict=True))
    if not inside:
        trial.set_user_attr(space.weights_key, weights)
    return weights


def weights_of(
    space: ParameterSpace, trial: optuna.trial.FrozenTrial | optuna.trial.Trial
) -> Array | None:
    """Read the merge weights of a trial, (K,); see `MixtureSpace.weights`."""
    written = trial.user_attrs.get(space.weights_key)
    if written is not None:
        return _as_written(space, written)
    params = trial.params
    if any(param not in params for param in space.param_names):
        return None
    values = np.array([params[param] for param in space.param_names], dtype=np.float64)
    if not np.isfinite(values).all():
        return None
    if abs(values.sum() - 1.0) <= INSIDE and (values >= -INSIDE).all():
        settled: Array = settle(values[None], np.zeros(len(space)), np.ones(len(space)))[0]
        return settled
    # A trial which is being suggested right now: its attribute will say the same.
    return _mended(space, values)


def enqueue(
    space: ParameterSpace,
    study: optuna.study.Study,
    weights: PerName,
    params: Mapping[str, Any] | None,
    user_attrs: Mapping[str, Any] | None,
    skip_if_exists: bool,
) -> None:
    """Queue a mixture; see `MixtureSpace.enqueue`."""
    read = _read(space, weights)
    inside = _inside(space, read)
    if inside is None:
        raise ConstraintError(
            f"the weights break {', '.join(space.broken(read))}; queue a mixture within the "
            "constraints, or add a result you have with create_trial"
        )
    study.enqueue_trial(
        {**_others(space, params), **_parameters(space, inside)},
        user_attrs=dict(user_attrs or {}),
        skip_if_exists=skip_if_exists,
    )


def create_trial(
    space: ParameterSpace,
    weights: PerName,
    values: float | Sequence[float] | None,
    params: Mapping[str, Any] | None,
    distributions: Mapping[str, BaseDistribution] | None,
    user_attrs: Mapping[str, Any] | None,
    **options: Any,
) -> optuna.trial.FrozenTrial:
    """Make a finished trial of a mixture; see `MixtureSpace.create_trial`."""
    import optuna

    others, kinds = _others(space, params), dict(distributions or {})
    if others.keys() != kinds.keys():
        odd = sorted(others.keys() ^ kinds.keys())
        raise ConfigError(
            f"create_trial: {', '.join(map(repr, odd))} must be in params and in distributions"
        )
    read, attrs = _read(space, weights), dict(user_attrs or {})
    inside = _inside(space, read)
    # Parameters lie within their distributions, which are the same for all trials, or samplers
    # that work on what the trials have in common would lose them.
    shown = np.clip(read, space.lower, space.upper) if inside is None else inside
    if inside is None and np.any(shown != read):
        attrs[space.weights_key] = dict(zip(space.components, read.tolist(), strict=True))
    return optuna.trial.create_trial(
        values=None if values is None else _results(values),
        params={**others, **_parameters(space, shown)},
        distributions={**kinds, **space.distributions()},
        user_attrs=attrs,
        **{name: option for name, option in options.items() if option is not None},
    )


def _read(space: ParameterSpace, weights: PerName) -> Array:
    """Read a mixture that a user wrote, (K,): it sums to 1, but may break the constraints."""
    given = arguments.entries(weights, space.components, "weights")
    missing = [component for component in space.components if component not in given]
    if missing:
        listed = ", ".join(map(repr, missing))
        raise ConfigError(f"weights lack {listed}; give 0 where a component takes no part")
    read: Array = np.array([arguments.number(v, f"the weight of {c!r}") for c, v in given.items()])
    below = np.flatnonzero(read < -INSIDE)
    if len(below):
        i = int(below[0])
        raise ConfigError(
            f"the weight of {space.components[i]!r} must be at least 0, got {read[i]:g}"
        )
    read = np.maximum(read, 0.0)
    total = read.sum()
    if abs(total - 1.0) > _ROUNDED * len(read):
        raise ConfigError(f"the weights sum to {total:.9g}; they must sum to 1")
    if abs(total - 1.0) > SUM_TOLERANCE:
        read /= total
    return read


def _inside(space: ParameterSpace, w: Array) -> Array | None:
    """The mixture itself (K,), without what rounding breaks; None if it breaks a constraint."""
    if space.contains(w):
        settled: Array = settle(w[None], space.lower, space.upper)[0]
        return settled
    return space.project(w) if space.contains(w, atol=_ROUNDED) else None


def _others(space: ParameterSpace, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parameters beside the mixture."""
    for param in params or {}:
        if param in space.param_names:
            raise ConfigError(f"params names {param!r}, which is one of the weights; leave it out")
    return dict(params or {})


def _parameters(space: ParameterSpace, w: Array) -> dict[str, float]:
    return dict(zip(space.param_names, w.tolist(), strict=True))


def _results(values: float | Sequence[float] | npt.NDArray[Any]) -> list[float]:
    """Read one value or several; infinite ones are results, NaN is none."""
    try:
        read = [float(value) for value in np.atleast_1d(values)]
    except (TypeError, ValueError):
        raise ConfigError(
            f"values must be a number or a list of numbers, got {values!r}"
        ) from None
    if np.isnan(read).any():
        raise ConfigError(
            "values: NaN is no result; record a failed run without values and with "
            "state=optuna.trial.TrialState.FAIL"
        )
    return read


def _mended(space: ParameterSpace, values: Array) -> Array:
    """Turn parameters which are no mixture into the weights they stand for, (K,)."""
    values = np.maximum(values, 0.0)
    total = values.sum()
    return space.project(values / total if total > 0 else space.prior)


def _as_written(space: ParameterSpace, written: Any) -> Array | None:
    """Read the user attribute, (K,); None if it is not about exactly these components."""
    if not isinstance(written, Mapping):
        return None
    try:
        values = np.array([written[c] for c in space.components], dtype=np.float64)
        foreign = sum(abs(float(v)) for c, v in written.items() if c not in space.components)
    except (KeyError, TypeError, ValueError):
        return None
    known = bool(np.isfinite(values).all()) and foreign <= INSIDE
    return values if known else None
