"""Laws of how a score follows from a mixture, as the data-mixing literature has them.

A loss is exp(level - F(w) @ t), and a score a ceiling less the loss. Two forms are tried:

- in shares, F(w) = w and t of any sign: Data Mixing Laws (arXiv 2403.16952), Olmix (2602.12237);
- in epochs, t not negative: the worth of each dataset, which saturates as it is repeated, and the
  harm of repeating it (MARINER). What counts as an epoch is the mean share of the rows, which
  follows the prior: datasets of a thousandth and of a tenth of a mixture have scales of their own.

With fewer rows than datasets it is the pull of all t to 0 that makes either a law. Form and pull
are those of the least held-out error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix.surrogate._regressor import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    IntArray = NDArray[np.intp]

_PULLS = (10.0, 1.0, 0.1)  # rows of unit error that a coefficient of 1 costs, most first
_RATES = (0.25, 1.0)  # of saturation: after 4 mean shares, or 1, what is worth 1 is worth 1/e
_LEAST_UNIT = 0.1  # least scale of a share, in even shares
_ABOVE = 0.5  # where the ceiling starts and is drawn to: standard deviations above the best score
_CEILING_PULL = 0.01
_EVALUATIONS = 150
_LARGEST = 30.0  # exponent


class Form(NamedTuple):
    """What a row is to a law, before its coefficients.

    Attributes:
        n_mixture: Leading columns that are merge weights.
        unit: Scale of each weight (n_mixture,).
        rate: Of saturation, per unit; 0: the features are the weights themselves.
    """

    n_mixture: int
    unit: FloatArray
    rate: float

    def features(self, X: FloatArray) -> FloatArray:
        """Features (n, p) of rows (n, d)."""
        u = X[:, : self.n_mixture] / self.unit
        others = X[:, self.n_mixture :]
        if self.rate == 0.0:
            return np.hstack([u, others])
        return np.hstack([-np.expm1(-self.rate * u) / self.rate, -(u**2) / 8.0, others])

    def bounds(self, d: int) -> list[tuple[float | None, float | None]]:
        """Bounds of the coefficients (p) of rows of d columns."""
        free, rest = (None, None), d - self.n_mixture
        if self.rate == 0.0:
            return [free] * d
        return [(0.0, None)] * (2 * self.n_mixture) + [free] * rest


class Law:
    """A law fitted to one benchmark.

    Args:
        X: Rows (n, d), the first ``n_mixture`` columns being merge weights.
        z: Standardized scores (n,).
        folds: Disjoint folds that cover the rows.
        n_mixture: Number of columns that are merge weights.
    """

    def __init__(
        self, X: FloatArray, z: FloatArray, folds: Sequence[IntArray], *, n_mixture: int
    ) -> None:
        even = 1.0 / max(n_mixture, 1)
        unit = np.maximum(X[:, :n_mixture].mean(axis=0), _LEAST_UNIT * even)
        forms = [Form(n_mixture, np.full(n_mixture, even), 0.0)]
        forms += [Form(n_mixture, unit, rate) for rate in _RATES]
        best = np.inf
        for form in forms:
            F, bounds = form.features(X), form.bounds(X.shape[1])
            starts: list[FloatArray | None] = [None] * len(folds)
            for pull in _PULLS:
                mean = np.empty_like(z)
                for number, fold in enumerate(folds):
                    kept = np.setdiff1d(np.arange(len(z)), fold, assume_unique=True)
                    starts[number] = fit(F[kept], z[kept], bounds, pull, starts[number])
                    mean[fold] = _values(starts[number], F[fold])
                error = float(np.mean((z - mean) ** 2))
                if error < best:
                    best, self._form, self._pull, held_out = error, form, pull, mean
                    self._members = np.array(starts)  # (folds, 2 + p)
        F, bounds = self._form.features(X), self._form.bounds(X.shape[1])
        self._whole = fit(F, z, bounds, self._pull, None)
        self.shares = {"law": 1.0}
        self.optimism = 1.0
        self.held_out = Prediction(held_out, self.predict(X).variance)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d)."""
        return _values(self._whole, self._form.features(self._own(X)))

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d); the variance is that of the laws without a fold."""
        F = self._form.features(self._own(X))
        each = np.stack([_values(theta, F) for theta in self._members])
        return Prediction(_values(self._whole, F), (len(each) - 1) * each.var(axis=0))

    def describe(self) -> dict[str, Any]:
        """Scales, rate, and ceiling, level and coefficients of each law, that of all rows last."""
        return {
            "kind": "law",
            "n_mixture": self._form.n_mixture,
            "unit": self._form.unit,
            "rate": self._form.rate,
            "laws": np.vstack([self._members, self._whole]),
            "count": len(self._members) + 1,
        }

    def _own(self, X: FloatArray) -> FloatArray:
        return X[:, : len(self._whole) - 2 - (self._form.n_mixture if self._form.rate else 0)]


def fit(
    F: FloatArray,
    z: FloatArray,
    bounds: Sequence[tuple[float | None, float | None]],
    pull: float,
    start: FloatArray | None,
) -> FloatArray:
    """Ceiling, level and coefficients (2 + p,) for features (n, p), by L-BFGS-B.

    Args:
        F: Features (n, p).
        z: Standardized scores (n,).
        bounds: Bounds of the coefficients.
        pull: Weight of their squares.
        start: Where to start; ``None`` for a law without effects.
    """
    from scipy.optimize import minimize

    middle = F.mean(axis=0)
    A = F - middle
    above = float(z.max()) + _ABOVE

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        ceiling, t = theta[0], theta[2:]
        loss = np.exp(np.clip(theta[1] - A @ t, -_LARGEST, _LARGEST))
        left = ceiling - loss - z
        away = ceiling - above
        value = 0.5 * float(left @ left + pull * (t @ t) + _CEILING_PULL * away**2)
        steep = left * loss
        head = [left.sum() + _CEILING_PULL * away, -steep.sum()]
        return value, np.concatenate([head, A.T @ steep + pull * t])

    if start is None:
        theta = np.zeros(2 + F.shape[1])
        theta[:2] = above, np.log(above - z.mean())
        theta[2:] = [0.0 if low is None else 1e-3 for low, _ in bounds]
    else:
        theta = start.copy()
        theta[1] -= middle @ theta[2:]
    found = minimize(
        objective,
        theta,
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None), (None, None), *bounds],
        options={"maxfun": _EVALUATIONS},
    )
    theta = np.asarray(found.x, dtype=float)
    theta[1] += middle @ theta[2:]
    return theta


def _values(theta: FloatArray | None, F: FloatArray) -> FloatArray:
    """Scores (n,) of features (n, p)."""
    assert theta is not None
    exponent = np.clip(theta[1] - F @ theta[2:], -_LARGEST, _LARGEST)
    return np.asarray(theta[0] - np.exp(exponent))
