"""The merge methods' names and parameters: plain data, so that a study's file is checked early.

Names, meanings and defaults are those of mergekit, so that its configurations can be copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from optuna_demix._wording import did_you_mean
from optuna_demix.errors import ConfigError

Number: TypeAlias = "float | int | bool"


@dataclass(frozen=True)
class Parameter:
    """What one parameter of a merge method may be.

    Attributes:
        default: Its value if not given; None: it must be given.
        kind: Python type of the value; an int will do for a float.
        allowed: Tells whether a value can be used.
        wanted: The same in words, for messages.
    """

    default: Number | None
    kind: type
    allowed: Callable[[float], bool]
    wanted: str


def _any(value: float) -> bool:
    return True


_DENSITY = Parameter(None, float, lambda x: 0.0 < x <= 1.0, "above 0 and at most 1")
_LAMBDA = Parameter(1.0, float, _any, "a number")
_GAMMA = Parameter(0.01, float, lambda x: 0.0 <= x < 1.0, "from 0 to below 1")
_EPSILON = Parameter(0.15, float, lambda x: 0.0 <= x < 0.5, "from 0 to below 0.5")
_SEED = Parameter(0, int, lambda x: x >= 0, "a whole number from 0 on")
_STEPS = Parameter(10, int, lambda x: x >= 1, "a whole number from 1 on")
_TOLERANCE = Parameter(1e-5, float, lambda x: x > 0.0, "a positive number")
_YES = Parameter(True, bool, _any, "true or false")
_NO = Parameter(False, bool, _any, "true or false")
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "linear": {},
    "task_arithmetic": {"lambda": _LAMBDA, "normalize": _NO},
    "ties": {"density": _DENSITY, "lambda": _LAMBDA, "normalize": _YES, "rescale": _NO},
    "dare_linear": {
        "density": _DENSITY,
        "lambda": _LAMBDA,
        "normalize": _NO,
        "rescale": _YES,
        "seed": _SEED,
    },
    "dare_ties": {
        "density": _DENSITY,
        "lambda": _LAMBDA,
        "normalize": _NO,
        "rescale": _YES,
        "seed": _SEED,
    },
    "breadcrumbs": {
        "density": _DENSITY,
        "gamma": _GAMMA,
        "lambda": _LAMBDA,
        "normalize": _NO,
        "rescale": _NO,
    },
    "della": {
        "density": _DENSITY,
        "epsilon": _EPSILON,
        "lambda": _LAMBDA,
        "normalize": _YES,
        "rescale": _YES,
        "seed": _SEED,
    },
    "multislerp": {"use_base": _NO},
    "karcher": {"max_iter": _STEPS, "tol": _TOLERANCE},
}
"""Parameters of each merge method, by name."""


def resolve(method: str, given: Mapping[str, Number]) -> dict[str, Number]:
    """Return all parameters of a merge method, those not given at their defaults.

    Args:
        method: Its name.
        given: Parameters by name.

    Raises:
        ConfigError: If the method or a parameter is unknown, missing or out of range.
    """
    if method not in PARAMETERS:
        raise ConfigError(f"unknown merge method {method!r}; {_hint(method, PARAMETERS)}")
    known = PARAMETERS[method]
    for name in given:
        if name not in known:
            hint = _hint(name, known) if known else "remove it: this method has no parameters"
            raise ConfigError(f"merge method {method!r} has no parameter {name!r}; {hint}")
    values = {name: _value(method, name, known[name], given) for name in known}
    if method == "della":
        _check_della(float(values["density"]), float(values["epsilon"]))
    return values


def check_deltas(method: str, delta_dtype: str | None) -> None:
    """Refuse differences of lower precision where a merge method cannot work on them.

    Args:
        method: Its name.
        delta_dtype: Element type of the differences; None if components are kept as they are.

    Raises:
        ConfigError: Naming the method.
    """
    if delta_dtype is not None and method != "linear":
        raise ConfigError(
            f"merge method {method!r} cannot work on components that are kept as differences in "
            f"{delta_dtype}; use 'linear' or remove delta_dtype"
        )


def _value(method: str, name: str, parameter: Parameter, given: Mapping[str, Number]) -> Number:
    if name not in given:
        if parameter.default is None:
            raise ConfigError(
                f"merge method {method!r} needs the parameter {name!r}, {parameter.wanted}; add it"
            )
        return parameter.default
    value = given[name]
    is_kind = isinstance(value, parameter.kind) or (
        parameter.kind is float and isinstance(value, int)
    )
    # bool is an int in Python, but no count and no share.
    if isinstance(value, bool) != (parameter.kind is bool):
        is_kind = False
    if not is_kind or not math.isfinite(value) or not parameter.allowed(value):
        raise ConfigError(
            f"merge method {method!r}: parameter {name!r} must be {parameter.wanted}, "
            f"got {value!r}"
        )
    return float(value) if parameter.kind is float else value


def _check_della(density: float, epsilon: float) -> None:
    """Probabilities of keeping an element run from density − epsilon to density + epsilon."""
    if density < 1.0 and not 0.0 < density - epsilon <= density + epsilon < 1.0:
        raise ConfigError(
            f"merge method 'della': density {density} ± epsilon {epsilon} must stay above 0 and "
            "below 1; change one of them"
        )


def _hint(name: str, known: Mapping[str, object]) -> str:
    return did_you_mean(name, known) or f"use one of: {', '.join(known)}"
