"""A score taken apart: the value of every document and the uncertainty of their aggregate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["linear", "exponential", "other"]


@dataclass(frozen=True)
class ItemTable:
    """Documents behind one score.

    Attributes:
        values: The metric of each document alone, (n,).
        weights: Share of each document in the aggregate, (n,), summing to 1.
        kind: How the score follows from them: ``weights @ values`` if linear, its exponential over
            logarithms if exponential (perplexities), unknown otherwise.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    kind: Kind


def tabulate(raw: Sequence[Any], aggregation: str | None) -> ItemTable | None:
    """Values and weights of the documents.

    Args:
        raw: What the task's ``process_results`` gave for the metric, one entry a document: a
            number, or ``(log-likelihood, length)`` for the metrics of rolling log-likelihood.
        aggregation: lm-eval's name of the aggregation, ``None`` if it has none.

    Returns:
        The table, or ``None`` where a single document has no value of its own (F1, BLEU, ...).
    """
    if not raw:
        return None
    if aggregation in ("bits_per_byte", "weighted_perplexity"):
        likelihoods, lengths = np.asarray(raw, dtype=float).T  # (n,), (n,)
        weights = lengths / lengths.sum()
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if aggregation == "bits_per_byte":
                return ItemTable(-likelihoods / lengths / math.log(2), weights, "linear")
            return ItemTable(np.exp(-likelihoods / lengths), weights, "exponential")
    if not all(isinstance(value, int | float | np.number | np.bool_) for value in raw):
        return None
    values = np.asarray(raw, dtype=float)
    uniform = np.full(len(values), 1 / len(values))
    if aggregation == "perplexity":
        with np.errstate(over="ignore"):
            return ItemTable(np.exp(-values), uniform, "exponential")
    return ItemTable(values, uniform, "linear" if aggregation == "mean" else "other")


def standard_error(table: ItemTable) -> float:
    r"""Standard error of the score under a new draw of documents.

    With weights :math:`a_i`, values :math:`x_i` and score :math:`s = \sum_i a_i x_i`,

    .. math:: SE^2 = \frac{n}{n-1} \sum_i a_i^2 (x_i - s)^2 .

    For a mean this is lm-eval's ``mean_stderr``; for bits per byte, a ratio of two sums, it is the
    linearized variance of a ratio estimator (Cochran, *Sampling Techniques*, 3rd ed., eq. 6.13),
    where lm-eval has none. Perplexities take it of the logarithm, times the perplexity (delta
    method), where lm-eval draws 100,000 bootstrap samples.

    Returns:
        The standard error; NaN for fewer than two documents or an unknown aggregation.
    """
    n = len(table.values)
    if n < 2 or table.kind == "other":
        return math.nan
    if table.kind == "linear":
        return _linear_error(table.values, table.weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(table.values)
        return float(np.exp(table.weights @ logs)) * _linear_error(logs, table.weights)


def _linear_error(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    n = len(values)
    with np.errstate(invalid="ignore"):
        residuals = weights * (values - weights @ values)
    return math.sqrt(n / (n - 1)) * float(np.linalg.norm(residuals))


def join(tables: Sequence[ItemTable], *, by_size: bool) -> ItemTable:
    """The table of a group, whose score is the mean of its tasks' scores.

    Args:
        tables: The tasks' tables, in the group's order.
        by_size: Whether the mean weighs each task by its number of documents.
    """
    sizes = np.array([len(table.values) if by_size else 1 for table in tables], dtype=float)
    shares = sizes / sizes.sum()
    return ItemTable(
        np.concatenate([table.values for table in tables]),
        np.concatenate([s * table.weights for s, table in zip(shares, tables, strict=True)]),
        "linear" if all(table.kind == "linear" for table in tables) else "other",
    )
