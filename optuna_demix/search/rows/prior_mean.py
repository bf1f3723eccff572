"""A cheap prediction of scores that the user gives, as the surrogate and the search need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from optuna_demix._wording import shown
from optuna_demix.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.targets import Targets

ScoreOfMixtures: TypeAlias = "Callable[[FloatArray], ArrayLike]"


def benchmarks_of(function: object) -> tuple[str, ...] | None:
    """Names of the benchmarks that a prior mean returns; ``None`` if it returns objectives.

    Raises:
        ConfigError: If it is no function, or the names are not strings that differ.
    """
    if not callable(function):
        raise ConfigError(
            "prior_mean must be a function of merge weights (n, K) that returns scores (n, m); "
            f"got {shown(function)}"
        )
    names = getattr(function, "benchmarks", None)
    if names is None:
        return None
    is_sequence = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_sequence or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"prior_mean.benchmarks must be a tuple of names, got {shown(names)}; leave it out "
            "where prior_mean returns the objectives"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"prior_mean.benchmarks names one twice: {', '.join(names)}")
    return tuple(names)


class PriorMean:
    """The prior mean of what is regressed, for rows.

    Args:
        function: Scores (n, m) of merge weights (n, K), in the objectives' own directions; if it
            has ``benchmarks``, one column for each of these instead.
        targets: What is regressed.
        n_mixture: Number K of leading columns of a row that are merge weights.

    Raises:
        ConfigError: If it names benchmarks, and the study scores none of them.
    """

    def __init__(self, function: ScoreOfMixtures, targets: Targets, n_mixture: int) -> None:
        self._function = function
        self._targets = targets
        self._n_mixture = n_mixture
        self._named = benchmarks_of(function)
        scored = targets.benchmarks or targets.objectives
        if self._named is not None and not set(self._named) & set(scored):
            raise ConfigError(
                f"prior_mean names the benchmarks {', '.join(self._named)}, of which this study "
                f"scores none ({', '.join(scored) or 'its values have no names'}); correct "
                "prior_mean.benchmarks"
            )
        # Column of the function for each regressed score (b,), -1 where there is none.
        if self._named is not None:
            self._columns = np.array(
                [self._named.index(name) if name in self._named else -1 for name in scored]
            )
        elif targets.benchmarks:
            # A benchmark starts from the objective that it counts most in.
            counts = targets.mixing.max(axis=1) > 0.0
            self._columns = np.where(counts, targets.mixing.argmax(axis=1), -1)
        else:
            self._columns = np.arange(len(targets.signs))

    def __call__(self, X: FloatArray) -> FloatArray:
        """Prior mean (n, b) of what is regressed at rows (n, d); NaN where there is none."""
        values = self._values(X)
        known = self._columns >= 0
        prior = np.full((len(X), len(self._columns)), np.nan)
        prior[:, known] = values[:, self._columns[known]]
        return prior

    def objectives(self, X: FloatArray) -> FloatArray:
        """Prior mean (n, m) of the objectives at rows (n, d), higher is better.

        Benchmarks without a prior mean are left out of the objectives that they count in.
        """
        if self._named is None:
            return self._values(X)
        known = self._columns >= 0
        mixed: FloatArray = self(X)[:, known] @ self._targets.mixing[known]
        return mixed

    def _values(self, X: FloatArray) -> FloatArray:
        """What the function returns (n, ...) for rows (n, d), higher is better."""
        what = "benchmark" if self._named is not None else "objective"
        signs = np.ones(len(self._named)) if self._named is not None else self._targets.signs
        shape = (len(X), len(signs))
        if len(X) == 0:
            return np.empty(shape)
        returned = self._function(np.array(X[:, : self._n_mixture]))
        try:
            values = np.asarray(returned, dtype=float)
        except (TypeError, ValueError):
            raise ConfigError(
                f"prior_mean must return an array of numbers of shape {shape}, got "
                f"{shown(returned)}; correct it"
            ) from None
        if values.shape != shape:
            raise ConfigError(
                f"prior_mean must return an array of shape {shape}, a row for each mixture and a "
                f"column for each {what}, got shape {values.shape}; correct it"
            )
        return values * signs
