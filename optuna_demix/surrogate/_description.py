"""A fitted surrogate as plain numbers and arrays, to be evaluated by another program.

Most of it is what the regressors hold. What cannot be carried along is replaced by a Gaussian
process fitted to it on given rows, with its error on rows it has not seen: a prior mean, which may
be any function, and parts that would be too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.surrogate._data import center_scale
from optuna_demix.surrogate._gaussian_process import GaussianProcess
from optuna_demix.surrogate._regressor import make_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_demix._typing import FloatArray
    from optuna_demix.surrogate._surrogate import Fitted

_HELD_OUT = 1.0 / 3.0  # share of the rows that errors of approximations are measured on
_WITHIN = 0.95  # quantile of the errors that is told
_LEAST_ROWS = 12


@dataclass(frozen=True)
class Description:
    """A fitted surrogate as plain data.

    Attributes:
        benchmarks: For each benchmark its ``regressor`` in standard units (nested mappings with a
            ``kind`` and arrays), ``center`` and ``scale`` of the scores, and approximations of its
            ``prior``, its ``mean`` and its ``std``, ``None`` where there is none.
        mean_error: What 95 of 100 held-out rows differ by at most (b,), in scores; 0 where the
            description is exact.
        std_error: The same (b,) for the standard deviation, relative to it.
    """

    benchmarks: list[dict[str, Any]]
    mean_error: FloatArray
    std_error: FloatArray


def describe(
    fitted: Sequence[Fitted],
    X: FloatArray,
    prior: FloatArray,
    *,
    n_mixture: int,
    seed: int,
    most_bytes: float,
) -> Description:
    """Describe every benchmark.

    Args:
        fitted: The benchmarks, b of them.
        X: Rows (N, d) near which approximations have to hold, in random order.
        prior: Prior mean (N, b) of the rows, NaN where there is none.
        n_mixture: Number of leading columns that are merge weights.
        seed: Seed of the approximations.
        most_bytes: Size of all arrays; benchmarks that need more than their part are approximated.
    """
    maker = _Maker(X, n_mixture, seed, most_bytes / max(1, len(fitted)))
    parts = [maker.describe(one, p) for one, p in zip(fitted, prior.T, strict=True)]
    return Description(
        [part for part, *_ in parts],
        np.array([mean for _, mean, _ in parts]),
        np.array([std for *_, std in parts]),
    )


class _Maker:
    """Describes one benchmark after another."""

    def __init__(self, X: FloatArray, n_mixture: int, seed: int, most_bytes: float) -> None:
        n_kept = max(len(X) - int(_HELD_OUT * len(X)), min(len(X), _LEAST_ROWS))
        self._kept, self._new = X[:n_kept], X[n_kept:]
        self._n_kept = n_kept
        self._n_mixture = n_mixture
        self._seed = seed
        self._most_bytes = most_bytes

    def describe(self, one: Fitted, p: FloatArray) -> tuple[dict[str, Any], float, float]:
        """The description, and the errors of mean and standard deviation."""
        node: dict[str, Any] | None = one.regressor.describe()
        found: dict[str, Any] = {"prior": None, "mean": None, "std": None}
        p_new = p[self._n_kept :]
        guessed = p_new
        if _uses_prior(node):
            found["prior"], guessed = self._approximate(p[: self._n_kept])
        mean, std = one.predict(self._new, p_new)
        seen_mean, seen_std = one.predict(self._new, guessed)
        if size_of(node) > self._most_bytes:
            means, stds = one.predict(self._kept, p[: self._n_kept])
            found["std"], logs = self._approximate(np.log(np.maximum(stds, 1e-300)))
            seen_std = np.exp(logs)
            node = _without_factors(node)
            if size_of(node) > self._most_bytes:
                found["mean"], seen_mean = self._approximate(means)
                node, found["prior"] = None, None
        found |= {"center": one.center, "scale": one.scale, "regressor": node}
        return found, _error(seen_mean - mean), _error((seen_std - std) / np.maximum(std, 1e-300))

    def _approximate(self, y: FloatArray) -> tuple[dict[str, Any], FloatArray]:
        """A process on the values (n,) of the kept rows, and what it says of the new ones."""
        known = np.isfinite(y)
        X, y = self._kept[known], y[known]
        center, scale = center_scale(y)
        if scale == 0.0:
            flat = {"center": center, "scale": 0.0, "process": None}
            return flat, np.full(len(self._new), center)
        folds = make_folds(len(y), 2, self._seed)
        z = (y - center) / scale
        process = GaussianProcess(X, z, folds, n_mixture=self._n_mixture, seed=self._seed)
        node = _without_factors(process.describe())
        found = {"center": center, "scale": scale, "process": node}
        return found, center + scale * process.mean(self._new)


def size_of(node: Any) -> int:
    """Bytes of the arrays of a description; rows are not counted, as benchmarks share them."""
    if isinstance(node, np.ndarray):
        return node.nbytes
    if isinstance(node, dict):
        return sum(size_of(value) for key, value in node.items() if key != "rows")
    return 0


def _uses_prior(node: dict[str, Any] | None) -> bool:
    return node is not None and node["kind"] in ("given", "from_prior")


def _without_factors(node: Any) -> Any:
    """A description that gives means alone."""
    if not isinstance(node, dict):
        return node
    return {key: _without_factors(value) for key, value in node.items() if key != "factor"}


def _error(differences: FloatArray) -> float:
    """What most of the differences (N,) are at most; 0 where there is nothing to tell."""
    known = np.abs(differences[np.isfinite(differences)])
    return float(np.quantile(known, _WITHIN)) if len(known) else 0.0
