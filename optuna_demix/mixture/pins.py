"""Bounds of a space whose weights are fixed in part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.errors import ConstraintError
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.region import INSIDE

if TYPE_CHECKING:
    from optuna_demix.mixture._specification import Specification


def pinned(given: Specification, fixed: Iterable[tuple[str, float]]) -> tuple[Array, Array]:
    """Lower and upper bounds (K,), equal where a weight is fixed.

    Raises:
        ConstraintError: If a weight lies outside its bounds, or below the minimum of those that
            take part.
    """
    lower, upper, minima = given.lower.copy(), given.upper.copy(), given.least_weights
    for component, weight in fixed:
        i = given.components.index(component)
        nearest = float(np.clip(weight, lower[i], upper[i]))
        if abs(weight - nearest) > INSIDE:
            side = "upper" if weight > nearest else "lower"
            raise ConstraintError(
                f"{component!r} cannot be pinned to {weight:g}: its {side} bound is {nearest:g}"
            )
        least = float(minima[i])
        if 0.0 < nearest < least:
            raise ConstraintError(
                f"{component!r} cannot be pinned to {weight:g}: min_weight is {least:g}; pin it "
                "to 0 or at least that"
            )
        lower[i] = upper[i] = nearest
    return lower, upper
