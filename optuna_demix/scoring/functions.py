"""Scores as functions of the requests' log-likelihoods, for many models at once.

lm-eval's metrics of log-likelihoods in array arithmetic: bits per byte and perplexities are linear
in them up to an exponential, an accuracy counts where the likeliest choice is a right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A weighted sum of log-likelihoods, or its exponential.

    Attributes:
        requests: The request that each document is scored on, (D,).
        coefficients: Its factor, (D,).
        exponential: Whether the score is the exponential of the sum, as a perplexity is.
    """

    requests: NDArray[np.intp]
    coefficients: FloatArray
    exponential: bool

    def __call__(self, log_likelihoods: FloatArray) -> FloatArray:
        """Scores (n,) of log-likelihoods (n, R)."""
        sums: FloatArray = log_likelihoods[:, self.requests] @ self.coefficients
        if not self.exponential:
            return sums
        with np.errstate(over="ignore"):
            return np.exp(sums)

    def slopes(self, log_likelihoods: FloatArray) -> FloatArray:
        """Derivative (R,) with respect to the log-likelihoods (R,)."""
        slopes = np.zeros(len(log_likelihoods))
        np.add.at(slopes, self.requests, self.coefficients)
        if self.exponential:
            slopes *= self(log_likelihoods[None])[0]
        return slopes


@dataclass(frozen=True)
class Choice:
    """The share of documents whose likeliest choice is a right one.

    Attributes:
        requests: The requests of each document's choices, (D, C); where there are fewer, any.
        lengths: What the log-likelihood of each choice is divided by; NaN where there is none,
            (D, C).
        right: Which choices are right, (D, C).
    """

    requests: NDArray[np.intp]
    lengths: FloatArray
    right: NDArray[np.bool_]

    def __call__(self, log_likelihoods: FloatArray) -> FloatArray:
        """Scores (n,) of log-likelihoods (n, R)."""
        merits = log_likelihoods[:, self.requests] / self.lengths  # (n, D, C)
        merits[:, np.isnan(self.lengths)] = -np.inf
        chosen = merits.argmax(axis=2)  # of equals the first, as in lm-eval
        hits: FloatArray = self.right[np.arange(len(self.right)), chosen].mean(axis=1)
        return hits


Part: TypeAlias = Linear | Choice


@dataclass(frozen=True)
class ScoreFunction:
    """A benchmark's score, higher is better.

    Attributes:
        parts: The tasks behind it.
        shares: Factor of each, its direction included.
    """

    parts: tuple[Part, ...]
    shares: tuple[float, ...]

    @property
    def smooth(self) -> bool:
        """Whether it has a derivative everywhere."""
        return all(isinstance(part, Linear) for part in self.parts)

    def __call__(self, log_likelihoods: FloatArray) -> FloatArray:
        """Scores (n,) of log-likelihoods (n, R)."""
        total = np.zeros(len(log_likelihoods))
        for part, share in zip(self.parts, self.shares, strict=True):
            total += share * part(log_likelihoods)
        return total

    def slopes(self, log_likelihoods: FloatArray) -> FloatArray:
        """Derivative (R,) of a smooth one with respect to the log-likelihoods (R,)."""
        total = np.zeros(len(log_likelihoods))
        for part, share in zip(self.parts, self.shares, strict=True):
            if not isinstance(part, Linear):
                raise ValueError("an accuracy has no derivative")
            total += share * part.slopes(log_likelihoods)
        return total


def to_arrays(functions: Mapping[str, ScoreFunction]) -> dict[str, NDArray[Any]]:
    """Functions as arrays by name, which :func:`from_arrays` reads."""
    arrays: dict[str, NDArray[Any]] = {"names": np.array(list(functions), dtype=np.str_)}
    for i, function in enumerate(functions.values()):
        arrays[f"{i}/shares"] = np.array(function.shares)
        for j, part in enumerate(function.parts):
            for name, value in vars(part).items():
                arrays[f"{i}/{j}/{name}"] = np.asarray(value)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, ScoreFunction]:
    """The functions that :func:`to_arrays` wrote.

    Raises:
        KeyError: If an array is missing.
    """

    def part(at: str) -> Part:
        if f"{at}/right" in arrays:
            return Choice(*(arrays[f"{at}/{name}"] for name in ("requests", "lengths", "right")))
        return Linear(
            arrays[f"{at}/requests"],
            arrays[f"{at}/coefficients"],
            exponential=bool(arrays[f"{at}/exponential"]),
        )

    found = {}
    for i, name in enumerate(arrays["names"].tolist()):
        shares = tuple(arrays[f"{i}/shares"].tolist())
        found[name] = ScoreFunction(tuple(part(f"{i}/{j}") for j in range(len(shares))), shares)
    return found
