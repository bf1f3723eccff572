"""Regressors that start from a given prediction of the scores: the prior mean.

It is one more column behind those of a row. Held-out errors tell how far it is used: a regressor
without it, and one of what a line in it leaves, are joined with weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.surrogate._data import center_scale
from optuna_demix.surrogate._kinds import (
    LinearTrees,
    Task,
    build,
    build_smooth,
    is_thin,
    join,
    mixed,
)
from optuna_demix.surrogate._regressor import Constant, Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    BoolArray = NDArray[np.bool_]

PRIOR = "prior"  # share of the regressors that start from the prior mean
# Rows that the slope 1 of standardized scores on a standardized prior mean counts for: with few
# rows, the prior mean is believed rather than a slope.
_LINE_ROWS = 2.0
# The weight of a stack is least squares on held-out rows, drawn towards what their likelihood says
# as by this many rows. Drawn towards one half, an exact prior mean would not be believed in time.
_STACK_ROWS = 8.0
_MIN_WEIGHT = 0.05  # a side of less weight is left out: it costs time and changes nothing
_EXACT = 1e-9  # spread of what a line leaves, relative to the scores, that is rounding


class AsGiven:
    """The prior mean as it is, for a benchmark of too few rows to learn from.

    Args:
        p: Prior mean (n,) of the rows.
        y: Scores (n,), not standardized.
    """

    def __init__(self, p: FloatArray, y: FloatArray) -> None:
        self._center = float(np.mean(y)) if len(y) else 0.0
        error = float(np.sqrt(np.mean((y - p) ** 2))) if len(y) else 0.0
        self.size = error or (abs(self._center) or 1.0) / max(len(y), 1)
        self.shares = {PRIOR: 1.0}
        self.held_out = self.predict(p[:, None])
        self.optimism = 1.0

    def mean(self, X: FloatArray) -> FloatArray:
        """The last column (N,) of rows; the mean of the scores where it is not finite."""
        p = X[:, -1]
        return np.where(np.isfinite(p), p, self._center)

    def predict(self, X: FloatArray) -> Prediction:
        """The same, with the mean squared error of the rows as variance (N,)."""
        return Prediction(self.mean(X), np.full(len(X), self.size**2))

    def describe(self) -> dict[str, Any]:
        """The variance."""
        return {"kind": "given", "variance": self.size**2}


class FromPriorMean:
    """A regressor of a kind that starts from a prior mean, as far as held-out errors confirm it.

    For the kinds with a Gaussian process, that decides, and trees learn what the line leaves of
    the scores: one ensemble of trees, and two processes, which cost little.

    Args:
        kind: Kind of the regressor.
        task: What it is fitted to.
        p: Prior mean (n,), finite and not all equal.
    """

    def __init__(self, kind: str, task: Task, p: FloatArray) -> None:
        self._unit = center_scale(p)
        blend = _Blend(kind, task, self._standard(p))
        self.weight = blend.weight
        if self.weight == 0.0:
            self._whole = build(kind, task)
        else:
            has_trees = kind == "auto" and not is_thin(task)
            trees = _LiftedTrees(task, blend) if has_trees else None
            self._whole = join(kind, task, blend, trees)
        self.shares = self._whole.shares
        self.held_out = self._whole.held_out
        self.optimism = self._whole.optimism

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d + 1), the prior mean last."""
        return self._whole.mean(self._rows(X))

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d + 1), the prior mean last."""
        return self._whole.predict(self._rows(X))

    def describe(self) -> dict[str, Any]:
        """The regressor, and the unit of the prior mean where it has weight."""
        if self.weight == 0.0:
            return self._whole.describe()
        center, scale = self._unit
        whole = self._whole.describe()
        return {"kind": "from_prior", "center": center, "scale": scale, "whole": whole}

    def _rows(self, X: FloatArray) -> FloatArray:
        if self.weight == 0.0:
            return X[:, :-1]
        return np.column_stack([X[:, :-1], self._standard(X[:, -1])])

    def _standard(self, p: FloatArray) -> FloatArray:
        center, scale = self._unit
        return (p - center) / scale


class _Blend:
    """A regressor of what a line in the prior mean leaves, and the same without the prior mean.

    Rows are followed by the standardized prior mean.

    Args:
        kind: Kind of the regressors.
        task: What they are fitted to.
        u: Standardized prior mean (n,).
    """

    def __init__(self, kind: str, task: Task, u: FloatArray) -> None:
        z, n = task.z, len(task.z)
        self._without = build_smooth(kind, task)
        self.line = Line(u, z)
        self.held_out_line = np.empty(n)
        for fold in task.folds:
            kept = np.setdiff1d(np.arange(n), fold, assume_unique=True)
            self.held_out_line[fold] = Line(u[kept], z[kept])(u[fold])
        self.u = u
        self.weight = 0.0
        if self.line.slope == 0.0:
            return
        left = z - self.line(u)
        self._scale = float(np.std(left))
        if self._scale > _EXACT:
            variance = task.variance / self._scale**2
            scaled = task._replace(z=left / self._scale, variance=variance)
            self._residual = build_smooth(kind, scaled)
        else:
            self._scale, self._residual = _EXACT, Constant(n)
        first = self._lift(self.held_out_line, u, self._residual.held_out)
        second = self._without.held_out
        self.weight = _weight(z, first.mean, second.mean)
        rest = 1.0 - self.weight
        self.shares = {PRIOR: self.weight}
        self.shares |= {kind: rest * share for kind, share in self._without.shares.items() if rest}
        self.optimism = self.weight * self._residual.optimism + rest * self._without.optimism
        self.held_out = self._mix(first, second)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d + 1); without the prior mean where it is NaN."""
        X, u, known = split(X)
        a = self.weight * known
        mean = np.zeros(len(X))
        if np.any(a < 1.0):
            mean += (1.0 - a) * self._without.mean(X)
        if np.any(a > 0.0):
            mean += a * (self.line(u) + self._scale * self._residual.mean(X))
        return mean

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d + 1); without the prior mean where it is NaN."""
        X, u, known = split(X)
        first = self._lift(self.line(u), u, self._residual.predict(X))
        if self.weight == 1.0 and known.all():
            return first
        return self._mix(first, self._without.predict(X), known)

    def describe(self) -> dict[str, Any]:
        """The line, what is regressed of the rest, and the regressor without the prior mean."""
        return {
            "kind": "blend",
            "weight": self.weight,
            "line": self.line.describe(),
            "scale": self._scale,
            "residual": self._residual.describe(),
            "without": self._without.describe() if self.weight < 1.0 else None,
        }

    def _lift(self, line: FloatArray, u: FloatArray, left: Prediction) -> Prediction:
        """Predictions of scores from those of what the line leaves."""
        variance = self._scale**2 * (left.variance + self.line.variance(u))
        return Prediction(line + self._scale * left.mean, variance)

    def _mix(
        self, first: Prediction, second: Prediction, known: BoolArray | None = None
    ) -> Prediction:
        if known is None:
            return mixed(self.weight, first, second)
        return mixed(np.where(known, self.weight, 0.0), first, second)


class _LiftedTrees:
    """Linear trees on the scores less as much of the line as the blend uses."""

    def __init__(self, task: Task, blend: _Blend) -> None:
        self._weight, self._line = blend.weight, blend.line
        left = task.z - self._weight * self._line(blend.u)
        self._trees = LinearTrees(task._replace(z=left))
        self.shares = {
            PRIOR: self._weight,
            **{kind: (1.0 - self._weight) * share for kind, share in self._trees.shares.items()},
        }
        self.optimism = self._trees.optimism
        held_out = self._trees.held_out
        lifted = held_out.mean + self._weight * blend.held_out_line
        self.held_out = Prediction(lifted, held_out.variance)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d + 1), an average prior mean in place of NaN."""
        X, u, _ = split(X)
        return self._trees.mean(X) + self._weight * self._line(u)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d + 1), an average prior mean in place of NaN."""
        X, u, _ = split(X)
        trees = self._trees.predict(X)
        return Prediction(trees.mean + self._weight * self._line(u), trees.variance)

    def describe(self) -> dict[str, Any]:
        """The trees, the line and its weight."""
        parts = {"trees": self._trees.describe(), "line": self._line.describe()}
        return {"kind": "lifted", "weight": self._weight, **parts}


def split(X: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Rows (N, d), the column behind them with 0 for NaN (N,), and where it is none (N,)."""
    known = np.isfinite(X[:, -1])
    return X[:, :-1], np.where(known, X[:, -1], 0.0), known


class Line:
    """Least squares line of standardized scores z (n,) on a standardized prior mean u (n,).

    Its slope is drawn towards 1, and not negative.
    """

    def __init__(self, u: FloatArray, z: FloatArray) -> None:
        self._center = float(np.mean(u))
        self._height = float(np.mean(z))
        away = u - self._center
        self._rows = len(u)
        self._energy = float(away @ away) + _LINE_ROWS
        slope = (float(away @ (z - self._height)) + _LINE_ROWS) / self._energy
        self.slope = max(slope, 0.0)

    def __call__(self, u: FloatArray) -> FloatArray:
        return self._height + self.slope * (u - self._center)

    def describe(self) -> dict[str, float]:
        """Its numbers."""
        return {
            "center": self._center,
            "height": self._height,
            "slope": self.slope,
            "rows": self._rows,
            "energy": self._energy,
        }

    def variance(self, u: FloatArray) -> FloatArray:
        """Variance (N,) of the line, in units of that of what it leaves."""
        return 1.0 / self._rows + (u - self._center) ** 2 / self._energy


def _weight(z: FloatArray, first: FloatArray, second: FloatArray) -> float:
    """Weight of the first in the mean of two held-out predictions (n,).

    Minimizes mean (z - a first - (1 - a) second)² + λ (a - b)² mean (first - second)², where b is
    the posterior probability of the first if errors are normal and each row counts half.
    """
    apart = first - second
    total = float(apart @ apart)
    errors = [float((z - each) @ (z - each)) for each in (first, second)]
    if total == 0.0 or max(errors) == 0.0:
        return 0.0
    odds = 0.25 * len(z) * (np.log(max(errors[1], 1e-300)) - np.log(max(errors[0], 1e-300)))
    likely = float(1.0 / (1.0 + np.exp(-np.clip(odds, -50.0, 50.0))))
    pull = _STACK_ROWS / len(z)
    a = (float((z - second) @ apart) / total + pull * likely) / (1.0 + pull)
    if a < _MIN_WEIGHT:
        return 0.0
    return 1.0 if a > 1.0 - _MIN_WEIGHT else a
