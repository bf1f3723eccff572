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
_SMALL = 4096  # numbers of a member up to which it may keep the arrays that it was trained with


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
        for number, fold in enumerate(folds):
            kept = np.setdiff1d(np.arange(len(z)), fold, assume_unique=True)
            varied = settings if whole else _vary(settings, number)
            self._members.append(self._train(X, z, kept, varied, offset))
        self._final = self._train(X, z, np.arange(len(z)), settings, offset) if whole else None
        each = self._each(X)
        mean = np.empty_like(z)
        for predicted, fold in zip(each, folds, strict=True):
            mean[fold] = predicted[fold]
        # The one member without a row's fold has no scatter: the variance of all members serves.
        self.held_out = Prediction(mean, _scatter(each))

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at features (N, f), without the base margin."""
        if self._final is not None:
            return self._predict(self._final, X)
        total = sum((self._predict(member, X) for member in self._members), np.zeros(len(X)))
        return total / len(self._members)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at features (N, f), without the base margin."""
        each = self._each(X)
        mean = each.mean(axis=0) if self._final is None else self._predict(self._final, X)
        return Prediction(mean, _scatter(each))

    def describe(self) -> dict[str, Any]:
        """All trees as flat arrays, member after member.

        A node has a feature and a threshold, up to which a row goes left. A child below 0 is the
        leaf ``-1 - child``; a tree without nodes is the leaf that its root names. Leaf i is worth
        ``value[i]`` plus the sum of ``coefficient * X[variable]`` from ``start[i]`` to
        ``start[i + 1]``.
        """
        boosters = [*self._members, *([] if self._final is None else [self._final])]
        flat = _Flat()
        members = [flat.add(booster) for booster in boosters]
        return {"trees": members, "has_final": self._final is not None, **flat.arrays()}

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
        # Without its training data a member is small, but to drop them takes longer than to grow
        # trees on few rows: it is written as text and read again.
        keep = rows.size * X.shape[1] <= _SMALL
        return lightgbm.train(parameters, data, keep_training_booster=keep)

    def _each(self, X: FloatArray) -> FloatArray:
        """Predictions (folds, N) of the members at features (N, f)."""
        return np.stack([self._predict(member, X) for member in self._members])

    def _predict(self, member: Booster, X: FloatArray) -> FloatArray:
        if len(X) == 0:
            return np.empty(0)
        return np.asarray(member.predict(X, num_threads=self._n_threads), dtype=float)


def _scatter(each: FloatArray) -> FloatArray:
    """Jackknife variance (N,) of the mean of the members' predictions (folds, N)."""
    variance: FloatArray = (len(each) - 1) * np.mean((each - each.mean(axis=0)) ** 2, axis=0)
    return variance


def _vary(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """Settings of one member: its own seed, and thresholds drawn at random in every other."""
    return {**settings, "seed": number, "extra_trees": number % 2 == 1}


class _Flat:
    """Nodes and leaves of many trees as they are met, depth first."""

    def __init__(self) -> None:
        self._roots: list[int] = []
        self._nodes: list[list[float]] = []  # feature, threshold, left, right
        self._values: list[float] = []
        self._starts = [0]
        self._terms: list[tuple[int, float]] = []  # variable, coefficient

    def add(self, booster: Booster) -> int:
        """Add the trees of a booster; returns their number."""
        trees = booster.dump_model()["tree_info"]
        self._roots += [self._place(tree["tree_structure"]) for tree in trees]
        return len(trees)

    def _place(self, node: dict[str, Any]) -> int:
        """Index of a node, or ``-1 - index`` of a leaf."""
        if "split_feature" not in node:
            variables, coefficients = node.get("leaf_features", ()), node.get("leaf_coeff", ())
            self._terms += zip(variables, coefficients, strict=True)
            self._starts.append(len(self._terms))
            self._values.append(node.get("leaf_const", node["leaf_value"]))
            return -len(self._values)
        place = len(self._nodes)
        self._nodes.append([node["split_feature"], node["threshold"]])
        self._nodes[place] += [self._place(node[side]) for side in ("left_child", "right_child")]
        return place

    def arrays(self) -> dict[str, Any]:
        """All of it as arrays."""
        nodes = np.array(self._nodes, dtype=float).reshape(-1, 4)
        terms = np.array(self._terms, dtype=float).reshape(-1, 2)
        return {
            "root": np.array(self._roots, dtype=np.int32),
            "feature": nodes[:, 0].astype(np.int32),
            "threshold": nodes[:, 1].copy(),
            "child": nodes[:, 2:].astype(np.int32),
            "value": np.array(self._values, dtype=float),
            "start": np.array(self._starts, dtype=np.int32),
            "variable": terms[:, 0].astype(np.int32),
            "coefficient": terms[:, 1].copy(),
        }
