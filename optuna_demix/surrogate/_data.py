"""What enters a surrogate, checked: rows without gaps, scores without infinities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import ConfigError, InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_demix._typing import FloatArray

_FLAT = 1e-12  # scores that differ by less, relative to their size, are equal


def finite_scores(Y: Any) -> FloatArray:
    """Scores (n, m) with ±inf drawn in to just beyond the worst and best finite score.

    A search may report an infinite loss for a mixture that cannot be used: it must rank last,
    and must not make a regression meaningless. NaN (a missing benchmark) stays NaN.
    """
    scores: FloatArray = np.array(Y, dtype=float, ndmin=2)
    for column in scores.T:  # views: written in place
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        margin = 0.1 * (high - low)
        column[np.isposinf(column)] = high + margin
        column[np.isneginf(column)] = low - margin
    return scores


def checked_rows(X: ArrayLike, n_mixture: int | None) -> FloatArray:
    """Rows (n, d) as floats.

    Raises:
        InputError: If X is not two-dimensional, lacks columns or holds a value that is not finite.
    """
    rows = np.asarray(X, dtype=float)
    if rows.ndim != 2:
        raise InputError(
            f"X must be an array (rows, columns), got one of shape {rows.shape}; reshape it"
        )
    if n_mixture is not None and n_mixture > rows.shape[1]:
        raise InputError(
            f"X has {rows.shape[1]} columns, fewer than n_mixture = {n_mixture}; give every "
            "component a column"
        )
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"X holds {rows[row, column]} in row {row}, column {column}; every weight and "
            "parameter must be a finite number"
        )
    return rows


def checked_scores(Y: ArrayLike, n: int) -> FloatArray:
    """Scores (n, m) as floats, infinities drawn in, NaN kept.

    Raises:
        InputError: If Y does not hold one row, or one number, for each of the n rows of X.
    """
    scores = np.asarray(Y, dtype=float)
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or len(scores) != n:
        raise InputError(
            f"Y must hold {n} rows, as X does, got an array of shape {scores.shape}; give a row "
            "for each row of X, with NaN for a missing score"
        )
    return finite_scores(scores) if scores.size else scores


def checked_errors(errors: ArrayLike | None, shape: tuple[int, ...]) -> FloatArray:
    """Standard errors of scores (n, m) as floats, zeros if there are none.

    Raises:
        InputError: If there is not one for each score, or one is negative or not finite.
    """
    if errors is None:
        return np.zeros(shape)
    result = np.asarray(errors, dtype=float)
    if result.ndim == 1:
        result = result[:, None]
    if result.shape != shape:
        raise InputError(
            f"errors must be shaped like Y, {shape}, got an array of shape {result.shape}; use 0 "
            "where one is not known"
        )
    if not np.all(np.isfinite(result) & (result >= 0.0)):
        raise InputError("errors must be finite and not negative; use 0 where one is not known")
    return result


def checked_prior(prior: ArrayLike, shape: tuple[int, int]) -> FloatArray:
    """A prior mean (n, m) as floats, NaN where it is not finite.

    Raises:
        ConfigError: If it is not numbers, or of another shape; (n,) will do for one benchmark.
    """
    try:
        values = np.asarray(prior, dtype=float)
    except (TypeError, ValueError):
        values = None
    if values is not None and values.ndim == 1 and shape[1] == 1:
        values = values[:, None]
    if values is None or values.shape != shape:
        got = "what is no array of numbers" if values is None else f"shape {values.shape}"
        raise ConfigError(
            f"prior_mean must return an array of shape {shape}, a row for each mixture and a "
            f"column for each score, got {got}; correct it"
        )
    return np.where(np.isfinite(values), values, np.nan)


def checked_unit(unit: ArrayLike | None, n_mixture: int) -> FloatArray | None:
    """Shares (n_mixture,) of one epoch of each source as floats.

    Raises:
        ConfigError: If there is not one for each, or they are no shares.
    """
    if unit is None:
        return None
    shares = np.asarray(unit, dtype=float)
    if shares.shape != (n_mixture,) or not (np.isfinite(shares).all() and shares.min() >= 0.0):
        raise ConfigError(
            f"unit must hold {n_mixture} shares from 0 on, one for each source, got {unit!r}; "
            "correct it, or leave it out"
        )
    return shares if shares.any() else None


def center_scale(y: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation of finite scores (n,); the latter is 0 where all are equal."""
    if len(y) == 0:
        return 0.0, 0.0
    unit = float(np.abs(y).max()) or 1.0  # the squares of huge scores would overflow
    center, scale = float(np.mean(y / unit)), float(np.std(y / unit))
    return unit * center, unit * scale if scale > _FLAT else 0.0
