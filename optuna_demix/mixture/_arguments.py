"""Readers of a user's arguments: names, numbers and tables, each refused with a clear line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix._wording import did_you_mean
from optuna_demix.errors import ConfigError
from optuna_demix.mixture.geometry.simplex import Array

PerName = Mapping[str, float] | Sequence[float] | npt.NDArray[Any]

# Rows of a composition are written by hand: rounded shares are mended, others refused.
_ROW_SUM = 1e-6


def names_of(
    values: Iterable[str], what: str, if_mapping: str = "give its keys"
) -> tuple[str, ...]:
    """Read a non-empty list of distinct, non-empty names.

    Args:
        values: The names.
        what: What they are, for messages.
        if_mapping: What to do about a mapping, whose values would be lost.

    Raises:
        ConfigError: If they are anything else.
    """
    if isinstance(values, Mapping):
        raise ConfigError(f"{what}: a list of names is needed, got a mapping; {if_mapping}")
    if isinstance(values, set | frozenset):
        raise ConfigError(f"{what}: a set has no order; give a list, as sorted() makes one")
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{what}: a list of names is needed, got {values!r}")
    names = tuple(values)
    if not names:
        raise ConfigError(f"{what}: at least one name is needed")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{what}: names are non-empty strings, got {name!r}")
        if names.count(name) > 1:
            raise ConfigError(f"{what}: {name!r} is named twice")
    return names


def check_known(given: Iterable[str], known: Sequence[str], what: str) -> None:
    """Refuse names which are not among the known ones, with the most similar known name.

    Raises:
        ConfigError: For the first unknown name.
    """
    for name in given:
        if name not in known:
            listed = ", ".join(map(repr, known))
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"{what} names {name!r}, which is not one of {listed}{'; ' if hint else ''}{hint}"
            )


def number(value: Any, what: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    """Read one finite number within limits.

    Raises:
        ConfigError: If it is none, or lies outside.
    """
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{what} must be a number, got {value!r}") from None
    if not math.isfinite(result) or not least <= result <= most:
        limits = "finite" if least == -math.inf else f"finite and at least {least:g}"
        if most < math.inf:
            limits = f"between {least:g} and {most:g}"
        raise ConfigError(f"{what} must be {limits}, got {result:g}")
    return result


def entries(values: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """Read one entry a name: a mapping, perhaps with gaps, or a sequence in the names' order.

    Args:
        values: The mapping or sequence.
        names: All the names, in order.
        what: What the values are, for messages.

    Returns:
        The given entries; those of a mapping in the names' order, None left out.

    Raises:
        ConfigError: For unknown names, a wrong length or anything else.
    """
    if isinstance(values, Mapping):
        check_known(values, names, what)
        given = {name: values[name] for name in names if name in values}
    elif isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ConfigError(f"{what}: a mapping or a list is needed, got {values!r}")
    elif len(values) != len(names):
        raise ConfigError(f"{what}: {len(names)} values are needed, got {len(values)}")
    else:
        given = dict(zip(names, values, strict=True))
    return {name: value for name, value in given.items() if value is not None}


def bounds_of(values: float | PerName, names: Sequence[str], what: str, default: float) -> Array:
    """Read bounds of merge weights, (K,): a number for all, a mapping with gaps or a sequence.

    Raises:
        ConfigError: For unknown names and numbers outside [0, 1].
    """
    if np.ndim(values) == 0 and not isinstance(values, Mapping):  # type: ignore[arg-type]
        values = [values] * len(names)  # type: ignore[list-item]
    given = entries(values, names, what)
    return np.array(
        [
            number(given.get(name, default), f"{what} of {name!r}", least=0.0, most=1.0)
            for name in names
        ]
    )


def shares_of(values: Any, names: Sequence[str], what: str) -> Array:
    """Read non-negative masses, one a name and not all zero, as given, (K,).

    Raises:
        ConfigError: For unknown or missing names and masses that cannot be normalized.
    """
    given = entries(values, names, what)
    missing = [name for name in names if name not in given]
    if missing:
        listed = ", ".join(map(repr, missing))
        raise ConfigError(f"{what} lacks {listed}; give 0 where there is no mass")
    masses = np.array([number(given[n], f"{what} of {n!r}", least=0.0) for n in names])
    if not masses.sum() > 0:
        raise ConfigError(f"{what} needs at least one value above 0")
    return masses


def composition_of(
    values: Any, components: Sequence[str], datasets: Sequence[str] | None
) -> tuple[Array, tuple[str, ...]]:
    """Read what the components were trained on.

    Args:
        values: A mapping component -> dataset -> share, an array (K, D), or None: component i was
            trained on dataset i alone.
        components: Names of the components, K.
        datasets: Names of the datasets, D. None: those which the mapping names, components' names
            first, or else the components themselves.

    Returns:
        The composition, (K, D), rows summing to 1, and the names of the datasets.

    Raises:
        ConfigError: For unknown or missing names and rows which are no shares.
    """
    names = None if datasets is None else names_of(datasets, "datasets")
    if isinstance(values, Mapping):
        table, names = _table_of(values, components, names)
    else:
        table = _array_of(np.eye(len(components)) if values is None else values, components)
        names = tuple(components) if names is None else names
    if table.shape != (len(components), len(names)):
        hint = "; give a composition" if values is None else ""
        raise ConfigError(
            f"datasets: {len(names)} names do not fit the {table.shape[1]} columns "
            f"of the composition{hint}"
        )
    good = np.isfinite(table) & (table >= 0.0)
    for component, row, is_good in zip(components, table, good, strict=True):
        what = f"composition of {component!r}"
        for d in np.flatnonzero(~is_good):
            number(row[d], f"{what}: the share of {names[d]!r}", least=0.0)
        if abs(row.sum() - 1.0) > _ROW_SUM:
            raise ConfigError(f"{what} sums to {row.sum():.9g}; the shares must sum to 1")
    sums = table.sum(axis=1, keepdims=True)
    # Exact rows keep their bits, so that reading a composition twice changes nothing.
    return np.where(np.abs(sums - 1.0) > 1e-14, table / sums, table), names


def _table_of(
    values: Mapping[str, Any], components: Sequence[str], names: tuple[str, ...] | None
) -> tuple[Array, tuple[str, ...]]:
    rows = entries(values, components, "composition")
    for component in components:
        if component not in rows:
            raise ConfigError(f"composition lacks component {component!r}")
        if not isinstance(rows[component], Mapping):
            raise ConfigError(
                f"composition of {component!r}: a mapping dataset -> share is needed, "
                f"got {rows[component]!r}"
            )
    if names is None:
        seen = dict.fromkeys(dataset for row in rows.values() for dataset in row)
        own = [name for name in components if name in seen]
        names = names_of(list(dict.fromkeys([*own, *seen])), "datasets of the composition")
    table = np.zeros((len(components), len(names)))
    for i, component in enumerate(components):
        what = f"composition of {component!r}"
        for dataset, share in entries(rows[component], names, what).items():
            table[i, names.index(dataset)] = number(share, f"{what}: the share of {dataset!r}")
    return table, names


def _array_of(values: Any, components: Sequence[str]) -> Array:
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError("composition must be a mapping or a table of numbers") from None
    if table.ndim != 2 or len(table) != len(components):
        raise ConfigError(
            f"composition needs one row a component, {len(components)}, got shape {table.shape}"
        )
    return table
