"""LightGBM ensembles with one member per fold left out: members, errors and spread are one fit.

The members that leave a fold out predict it (held-out errors for free), their mean is a bagged
prediction, and their scatter is the delete-a-group jackknife of its variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.surrogate._regressor import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightgbm import Booster
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    IntArray = NDArray[np.intp]

# As in the released code of DeMix; everything else is LightGBM's default.
PUBLISHED: dict[str, Any] = {"num_iterations": 300, "learning_rate": 0.01, "seed": 42}

_LINEAR: dict[str, Any] = {
    "num_iterations": 40,
    "learning_rate": 0.25,
    "num_leaves": 4,
    "linear_tree": True,
    "linear_lambda": 0.01,
    "min_data_in_bin": 1,
}
_LEAF_SHARE = 0.05  # a leaf holds at least this share of the rows ...
_MIN_LEAF = 3  # ... and this many


def linear_settings(n: int) -> dict[str, Any]:
    """LightGBM parameters of shallow trees with linear leaves, leaf size scaled to n rows."""
    return {**_LINEAR, "min_data_in_leaf": max(_MIN_LEAF, int(_LEAF_SHARE * n))}


class TreeEnsemble:
    """LightGBM members, one for each fold left out, fitted to one benchmark.

    Args:
        X: Features (n, f).
        z: Standardized scores (n,).
        folds: Disjoint folds that cover the rows; at least two.
        settings: LightGBM parameters.
        whole: Predict with one more member that saw all rows, as published, in place of the mean.
        offset: Base margin (n,) that the trees add to: LightGBM's ``init_score``.
        n_threads: Threads of LightGBM.
    """

    def __init__(
        self,
        X: FloatArray,
        z: FloatArray,
        folds: Sequence[IntArray],
        *,
        settings: dict[str, Any],
        whole: bool = False,
        offset: FloatArray | None = None,
        n_threads: int = 1,
    ) -> None:
        self._n_threads = n_threads
        self._members: list[Booster] = []
        mean = np.empty_like(z)
        for number, fold in enumerate(folds):
            kept = np.setdiff1d(np.arange(len(z)), fold, assume_unique=True)
            varied = settings if whole else _vary(settings, number)
            member = self._train(X, z, kept, varied, offset)
            mean[fold] = self._predict(member, X[fold])
            self._members.append(member)
        self._final = self._train(X, z, np.arange(len(z)), settings, offset) if whole else None
        # The one member without a row's fold has no scatter: the variance of all members serves.
        self.held_out = Prediction(mean, self.predict(X).variance)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at features (N, f), without the base margin."""
        if self._final is not None:
            return self._predict(self._final, X)
        total = sum((self._predict(member, X) for member in self._members), np.zeros(len(X)))
        return total / len(self._members)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at features (N, f), without the base margin."""
        each = np.stack([self._predict(member, X) for member in self._members])  # (folds, N)
        mean = each.mean(axis=0)
        variance = (len(each) - 1) * np.mean((each - mean) ** 2, axis=0)
        return Prediction(mean if self._final is None else self._predict(self._final, X), variance)

    def _train(
        self,
        X: FloatArray,
        z: FloatArray,
        rows: IntArray,
        settings: dict[str, Any],
        offset: FloatArray | None,
    ) -> Booster:
        import lightgbm

        parameters = {
            "objective": "regression",
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self._n_threads,
            "verbosity": -1,
            **settings,
        }
        init = None if offset is None else offset[rows]
        data = lightgbm.Dataset(X[rows], z[rows], init_score=init, params=parameters)
        return lightgbm.train(parameters, data)

    def _predict(self, member: Booster, X: FloatArray) -> FloatArray:
        if len(X) == 0:
            return np.empty(0)
        return np.asarray(member.predict(X, num_threads=self._n_threads), dtype=float)


def _vary(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """Settings of one member: its own seed, and thresholds drawn at random in every other."""
    return {**settings, "seed": number, "extra_trees": number % 2 == 1}
