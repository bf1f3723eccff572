"""The kinds of regressor by name: a new kind is a class and a line in the table at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.surrogate._gaussian_process import GaussianProcess, warp
from optuna_demix.surrogate._law import Law
from optuna_demix.surrogate._regressor import Prediction
from optuna_demix.surrogate._trees import PUBLISHED, TreeEnsemble, linear_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.surrogate._regressor import Regressor

    IntArray = NDArray[np.intp]

_TREE_POWER = 1.0 / 3.0  # shares enter linear leaves as their cube roots: between share and log
# The process takes its hyperparameters as known, for its held-out rows too: on new rows, RegMix's
# and synthetic ones, variance and squared error are larger by about 1 + 64 / n.
_DOUBT_ROWS = 64.0
# Sum of squares that the even weights of a stack count for, in rows: with few rows the held-out
# errors of two regressors are too noisy to prefer one, and their mean is better than either.
_STACK_ROWS = 100.0
MANY_SOURCES = 24
"""Sources from which on ``auto`` holds a law: with fewer, the process soon knows enough."""
# Rows for each source below which the law has no process beside it, and neither has trees: they
# know too little of sources of which there are nearly as many as rows.
_PROCESS_ROWS, _TREE_ROWS = 1, 4
_LAW_ROWS = 512  # beyond them there is no law: it costs the cube of the rows, and adds little
_LAW_DOUBT_ROWS = 16.0  # as _DOUBT_ROWS, of the law's fewer hyperparameters
# Rows that a row counts as where held-out errors choose between law and process: trials crowd
# around the best, and what they say is much the same.
_EVIDENCE = 0.16
_MIN_WEIGHT = 0.05  # a regressor of less weight is left out: it costs time and changes nothing


class Task(NamedTuple):
    """What a regressor is fitted to: one benchmark in standard units.

    Only the Gaussian process uses the variances: trees take all rows as equally noisy.
    """

    X: FloatArray  # (n, d)
    z: FloatArray  # (n,)
    folds: Sequence[IntArray]
    n_mixture: int
    seed: int
    n_threads: int
    variance: FloatArray  # (n,) of the known error of each score
    unit: FloatArray | None = None  # (n_mixture,) share of one epoch of each source, if known


class PublishedTrees:
    """LightGBM as the released code of DeMix sets it: weights as they are, one fit on all rows."""

    def __init__(self, task: Task) -> None:
        self._trees = TreeEnsemble(
            task.X, task.z, task.folds, settings=PUBLISHED, whole=True, n_threads=task.n_threads
        )
        self.shares = {"lightgbm": 1.0}
        self.held_out = self._trees.held_out
        self.optimism = 1.0
        self.mean = self._trees.mean
        self.predict = self._trees.predict

    def describe(self) -> dict[str, Any]:
        """The trees, on rows as they are."""
        return {"kind": "trees", "power": 1.0, "n_mixture": 0, **self._trees.describe()}


class LinearTrees:
    """LightGBM with few leaves that hold linear models of cube roots of the shares, bagged."""

    def __init__(self, task: Task, offset: FloatArray | None = None) -> None:
        self._n_mixture = task.n_mixture
        self._width = task.X.shape[1]
        self._trees = TreeEnsemble(
            self._features(task.X),
            task.z,
            task.folds,
            settings=linear_settings(len(task.z)),
            offset=offset,
            n_threads=task.n_threads,
        )
        self.shares = {"lightgbm-linear": 1.0}
        self.held_out = self._trees.held_out
        self.optimism = 1.0

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d), without the base margin."""
        return self._trees.mean(self._features(X))

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d), without the base margin."""
        return self._trees.predict(self._features(X))

    def describe(self) -> dict[str, Any]:
        """The trees, and how a row becomes their features."""
        features = {"power": _TREE_POWER, "n_mixture": self._n_mixture}
        return {"kind": "trees", **features, **self._trees.describe()}

    def _features(self, X: FloatArray) -> FloatArray:
        # Behind its own columns a row may have a prior mean.
        return warp(X[:, : self._width], self._n_mixture, _TREE_POWER)


class _Alone:
    """One regressor as it is.

    Args:
        name: What it is called among the shares.
        regressor: The regressor.
        optimism: By how much it understates variances.
    """

    def __init__(self, name: str, regressor: GaussianProcess | Law, optimism: float) -> None:
        self.shares = {name: 1.0}
        self.optimism = optimism
        self.held_out = regressor.held_out
        self.mean = regressor.mean
        self.predict = regressor.predict
        self.describe = regressor.describe


class Process(_Alone):
    """The Gaussian process alone."""

    def __init__(self, task: Task) -> None:
        process = GaussianProcess(
            task.X,
            task.z,
            task.folds,
            n_mixture=task.n_mixture,
            seed=task.seed,
            variance=task.variance,
        )
        super().__init__("gp", process, 1.0 + _DOUBT_ROWS / len(task.z))


class LawAlone(_Alone):
    """The law of saturating shares, with a process for what it leaves."""

    def __init__(self, task: Task) -> None:
        law = Law(
            task.X,
            task.z,
            task.folds,
            n_mixture=task.n_mixture,
            seed=task.seed,
            unit=task.unit,
            variance=task.variance,
        )
        super().__init__("law", law, 1.0 + _LAW_DOUBT_ROWS / len(task.z))


class ProcessWithTrees:
    """The Gaussian process as LightGBM's base margin, with as much of the trees as helps.

    The margin of a row is the prediction of a process that has not seen the row's fold: one that
    has leaves nothing to learn. The amount of the trees is the least-squares factor on held-out
    rows, between 0 and 1.
    """

    def __init__(self, task: Task, process: Regressor | None = None) -> None:
        self._process = process or Process(task)
        self.shares = self._process.shares
        self.optimism = self._process.optimism
        margin = self._process.held_out
        trees = LinearTrees(task, offset=margin.mean)
        self.amount = _useful_amount(trees.held_out.mean, task.z - margin.mean)
        self._trees = trees if self.amount > 0 else None
        self.held_out = self._add(margin, trees.held_out)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d)."""
        mean = self._process.mean(X)
        return mean if self._trees is None else mean + self.amount * self._trees.mean(X)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d)."""
        none = Prediction(np.zeros(len(X)), np.zeros(len(X)))
        return self._add(self._process.predict(X), self._trees.predict(X) if self._trees else none)

    def describe(self) -> dict[str, Any]:
        """The process, and the trees with their amount."""
        return {
            "kind": "sum",
            "first": self._process.describe(),
            "optimism": self.optimism,
            "second": self._trees.describe() if self._trees else None,
            "amount": self.amount,
        }

    def _add(self, process: Prediction, trees: Prediction) -> Prediction:
        return Prediction(
            process.mean + self.amount * trees.mean,
            self.optimism * process.variance + self.amount**2 * trees.variance,
        )


class Stack:
    """Weighted mean of two regressors, the weight chosen on held-out rows.

    Args:
        first: One.
        second: The other.
        weight: Weight of the first.
        optimism: That of the mean.
    """

    def __init__(
        self, first: Regressor, second: Regressor, *, weight: float, optimism: float
    ) -> None:
        self.weight = weight
        self.shares = _mixed_shares(weight, first.shares, second.shares)
        self.optimism = optimism
        self._first, self._second = first, second
        self.held_out = self._mix(first.held_out, second.held_out)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d)."""
        a = self.weight
        mean = np.zeros(len(X))
        if a > 0.0:
            mean += a * self._first.mean(X)
        if a < 1.0:
            mean += (1.0 - a) * self._second.mean(X)
        return mean

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d)."""
        if self.weight == 1.0:
            return self._first.predict(X)
        if self.weight == 0.0:
            return self._second.predict(X)
        return self._mix(self._first.predict(X), self._second.predict(X))

    def describe(self) -> dict[str, Any]:
        """Both with the weight of the first; only those that have some."""
        return describe_mix(self.weight, self._first, self._second)

    def _mix(self, first: Prediction, second: Prediction) -> Prediction:
        return mixed(self.weight, first, second)


class ProcessAndLinearTrees(Stack):
    """Weighted mean of the process, or what stands for it, and the linear trees."""

    def __init__(
        self, task: Task, process: Regressor | None = None, trees: Regressor | None = None
    ) -> None:
        first, second = process or _smooth(task), trees or LinearTrees(task)
        weight = _stack_weight(task.z, first.held_out.mean, second.held_out.mean)
        optimism = 1.0 + weight**2 * _DOUBT_ROWS / len(task.z)
        super().__init__(first, second, weight=weight, optimism=optimism)


class ProcessAndLaw(Stack):
    """Mean of the process and the law, as likely as their errors on new rows make them."""

    def __init__(self, task: Task) -> None:
        first, second = Process(task), LawAlone(task)
        weight = _likely_weight(task.z, first, second)
        optimism = weight * first.optimism + (1.0 - weight) * second.optimism
        super().__init__(first, second, weight=weight, optimism=optimism)


def _smooth(task: Task) -> Regressor:
    """The law, the process, or the mean of both: what suits the numbers of rows and sources."""
    if _has_law(task) and len(task.z) < _PROCESS_ROWS * task.n_mixture:
        return LawAlone(task)
    return ProcessAndLaw(task) if _has_law(task) else Process(task)


def _has_law(task: Task) -> bool:
    return task.n_mixture >= MANY_SOURCES and len(task.z) <= _LAW_ROWS


def is_thin(task: Task) -> bool:
    """Whether there are many sources and so few rows that ``auto`` holds no trees."""
    return _has_law(task) and len(task.z) < _TREE_ROWS * task.n_mixture


def _auto(task: Task) -> Regressor:
    return _smooth(task) if is_thin(task) else ProcessAndLinearTrees(task)


def mixed(a: FloatArray | float, first: Prediction, second: Prediction) -> Prediction:
    """Mean of two predictions with weight a, one or (n,), of the first.

    The variance is that of a draw from either: where the two disagree, the mean is uncertain.
    """
    mean = a * first.mean + (1.0 - a) * second.mean
    variance = a * first.variance + (1.0 - a) * second.variance
    return Prediction(mean, variance + a * (1.0 - a) * (first.mean - second.mean) ** 2)


def describe_mix(weight: float, first: Regressor, second: Regressor) -> dict[str, Any]:
    """Two regressors with the weight of the first in their mean; only those that have some."""
    if weight in (0.0, 1.0):
        return (first if weight else second).describe()
    parts = {"first": first.describe(), "second": second.describe()}
    return {"kind": "mix", "weight": weight, **parts}


def _mixed_shares(a: float, first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Weight of each kind in the mean of two regressors, those that have some."""
    kinds = dict.fromkeys([*first, *second])
    shares = {k: a * first.get(k, 0.0) + (1.0 - a) * second.get(k, 0.0) for k in kinds}
    return {kind: share for kind, share in shares.items() if share > 0.0}


def _stack_weight(z: FloatArray, first: FloatArray, second: FloatArray) -> float:
    """Weight of the first in the mean of two held-out predictions (n,), drawn towards one half.

    Minimizes mean (z - a first - (1 - a) second)² + λ (a - ½)² mean (first - second)².
    """
    apart = first - second
    total = float(apart @ apart)
    if total == 0.0:
        return 1.0
    pull = _STACK_ROWS / len(z)
    a = (float((z - second) @ apart) + 0.5 * pull * total) / (total * (1.0 + pull))
    if a < _MIN_WEIGHT:
        return 0.0
    return 1.0 if a > 1.0 - _MIN_WEIGHT else a


def _likely_weight(z: FloatArray, first: Regressor, second: Regressor) -> float:
    """Probability of the first of two regressors, if errors on new rows are normal."""
    first_error, second_error = (
        max(each.optimism * float(np.mean((z - each.held_out.mean) ** 2)), 1e-300)
        for each in (first, second)
    )
    odds = 0.5 * _EVIDENCE * len(z) * np.log(second_error / first_error)
    a = float(1.0 / (1.0 + np.exp(-np.clip(odds, -50.0, 50.0))))
    if a < _MIN_WEIGHT:
        return 0.0
    return 1.0 if a > 1.0 - _MIN_WEIGHT else a


def _useful_amount(correction: FloatArray, residual: FloatArray) -> float:
    """Least-squares factor in [0, 1] of a held-out correction, 0 unless it is significant."""
    energy = float(correction @ correction)
    if energy == 0.0:
        return 0.0
    amount = float(correction @ residual) / energy
    error = residual - amount * correction
    uncertainty = float(np.sqrt(error @ error / (len(residual) * energy)))
    return min(amount, 1.0) if amount > 2.0 * uncertainty else 0.0


_REGRESSORS: dict[str, Callable[[Task], Regressor]] = {
    "auto": _auto,
    "gp": ProcessWithTrees,
    "lightgbm-linear": LinearTrees,
    "lightgbm": PublishedTrees,
}
KINDS = tuple(_REGRESSORS)
"""The kinds of a surrogate by name."""


def check_kind(kind: object) -> None:
    """Refuse an unknown kind of surrogate, before there is anything to fit.

    Raises:
        ConfigError: If the kind is none of :data:`KINDS`.
    """
    if kind not in KINDS:
        raise ConfigError(f"surrogate kind {kind!r} is unknown; use one of {', '.join(KINDS)}")


def build(kind: str, task: Task) -> Regressor:
    """A regressor of the kind, fitted to one benchmark."""
    return _REGRESSORS[kind](task)


def build_smooth(kind: str, task: Task) -> Regressor:
    """The part of a kind that is cheap: what it has beside trees, if anything."""
    if kind == "auto":
        return _smooth(task)
    return Process(task) if kind == "gp" else build(kind, task)


def join(kind: str, task: Task, smooth: Regressor, trees: Regressor | None) -> Regressor:
    """A regressor of the kind with another one in place of what :func:`build_smooth` makes.

    Args:
        kind: The kind.
        task: What it is fitted to.
        smooth: The other regressor. Its rows may have more columns than those of the task.
        trees: A regressor in place of the trees that stand beside the process.
    """
    if kind == "auto" and is_thin(task):
        return smooth
    if kind == "auto":
        return ProcessAndLinearTrees(task, smooth, trees)
    return ProcessWithTrees(task, smooth) if kind == "gp" else smooth
