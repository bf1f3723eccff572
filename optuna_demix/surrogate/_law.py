"""A law of how a score follows from a mixture of many sources, and a process for the rest.

Score = level + Σ_j θ_j e_j(w) + g(e(w)) + noise,    e_j = u_j (1 - exp(-rate w_j / u_j)) / rate

The unit u_j is one epoch of a source, its share in the prior. What a source teaches saturates as
it is repeated, as in laws fitted to real runs (MARINER; "Scaling Data-Constrained Language
Models", arXiv 2305.16264); with a rate near 0 the law is linear in shares, as the exponent of Data
Mixing Laws is (arXiv 2403.16952). What a token is worth, θ_j = θ + δ_j, is normal around what it
is worth in every source: without evidence all are worth the same, and the best mixture is the
prior. What the law leaves, such as the harm of repeats, is a Gaussian process g with one length
scale for all sources. Everything is normal, so that law and rest are one process (Rasmussen and
Williams 2006, section 2.7) with a few hyperparameters, however many sources there are. Means are
drawn into the range of the scores, widened by itself on either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix.surrogate._gaussian_process import (
    TUNING_ROWS,
    greatest_posterior,
    marginal_likelihood,
    matern,
    matern_with_slope,
    some_rows,
    squared_distance,
    upper_triangle,
)
from optuna_demix.surrogate._regressor import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    IntArray = NDArray[np.intp]

# Normal priors (mean, standard deviation) on the logarithms of the hyperparameters, and bounds.
# Variances are those over the rows, in units of the score's; lengths are in root mean square
# distances of rows.
_PRIORS = {
    "own": (np.log(0.5), 2.0),
    "common": (np.log(0.5), 2.0),
    "rest": (np.log(0.1), 2.0),
    "noise": (-5.0, 2.0),
    "rate": (0.0, 1.0),
    "length": (0.0, 1.0),
    "other_length": (0.0, 1.0),
}
_BOUNDS = {
    "own": (-8.0, 6.0),
    "common": (-8.0, 6.0),
    "rest": (-8.0, 3.0),
    "noise": (-11.0, 2.0),
    "rate": (-3.0, 2.0),
    "length": (-2.0, 3.0),
    "other_length": (-3.0, 4.0),
}
_LEVEL = 10.0  # variance of the level
_LEAST_UNIT = 0.1  # least epoch, in those of the mean source
_WIDENED = 1.0  # ranges of the scores that a value may lie beyond them
_JITTER = 1e-8


class Hyperparameters(NamedTuple):
    """Hyperparameters of the law: variances, the rate of saturation, and lengths of the rest."""

    own: float
    common: float
    rest: float
    noise: float
    rate: float
    length: float
    other_length: float


class Law:
    """The law fitted to one benchmark.

    Args:
        X: Rows (n, d), the first ``n_mixture`` columns being merge weights.
        z: Standardized scores (n,).
        folds: Disjoint folds that cover the rows.
        n_mixture: Number of columns that are merge weights.
        seed: Seed of the choice of rows where not all are used.
        unit: Share of one epoch of each source (n_mixture,); ``None`` for its mean in the rows.
        variance: Known variance (n,) of the error of each score, beside the noise they all have.
    """

    def __init__(
        self,
        X: FloatArray,
        z: FloatArray,
        folds: Sequence[IntArray],
        *,
        n_mixture: int,
        seed: int,
        unit: FloatArray | None = None,
        variance: FloatArray | None = None,
    ) -> None:
        variance = np.zeros_like(z) if variance is None else variance
        self._rows = X
        self._form = _Form.of(X, n_mixture, unit)
        tuning = some_rows(len(z), TUNING_ROWS, np.random.default_rng([seed, len(z)]))
        self.hyperparameters = h = _tune(self._form, X[tuning], z[tuning], variance[tuning])
        self._middle = self._form.epochs(X, h.rate).mean(axis=0)
        self._known = self._features(X)
        covariance = self._kernel(self._known)
        covariance[np.diag_indices_from(covariance)] += h.noise + variance + _JITTER
        self._whiten = np.linalg.inv(np.linalg.cholesky(covariance))  # (n, n)
        precision = self._whiten.T @ self._whiten
        self._alpha = precision @ z
        width = _WIDENED * float(np.ptp(z))
        self._range = float(z.min()) - width, float(z.max()) + width
        self.held_out = self._leave_out(precision, z, h.noise + variance, folds)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d)."""
        return self._clipped(self._kernel(self._features(X)) @ self._alpha)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d)."""
        features = self._features(X)
        kernel = self._kernel(features)
        known = np.square(kernel @ self._whiten.T).sum(axis=1)
        variance = np.maximum(self._prior_variance(features) - known, _JITTER)
        return Prediction(self._clipped(kernel @ self._alpha), variance)

    def describe(self) -> dict[str, Any]:
        """Rows of the kernel, what it is made of, and what turns kernels k (n,) into predictions.

        With epochs e less their ``middle``, the kernel of two rows is ``level + own e·e' + common
        Σe Σe' + rest matern(r)``, where r² = |(e - e') / sqrt(unit)|² / length² + |o - o'|² /
        other_length² for the other columns o. The mean is ``k @ alpha``, drawn into the range,
        the variance that of the row itself less ``|factor @ k|²``; the upper triangle of the
        factor is given, row by row.
        """
        h, form = self.hyperparameters, self._form
        return {
            "kind": "law",
            "n_mixture": form.n_mixture,
            "unit": form.unit,
            "rate": h.rate,
            "middle": self._middle,
            "level": _LEVEL,
            "own": h.own / form.own,
            "common": h.common / form.common,
            "rest": h.rest,
            "length": h.length * np.sqrt(form.apart),
            "other_length": h.other_length * np.sqrt(form.others_apart),
            "range": list(self._range),
            "rows": self._rows,
            "alpha": self._alpha,
            "factor": upper_triangle(self._whiten),
        }

    def _clipped(self, mean: FloatArray) -> FloatArray:
        return np.clip(mean, *self._range)

    def _features(self, X: FloatArray) -> _Features:
        form, h = self._form, self.hyperparameters
        return form.features(X, form.epochs(X, h.rate) - self._middle, h)

    def _kernel(self, features: _Features) -> FloatArray:
        """Covariances (N, n) between rows and those of the fit."""
        h, known = self.hyperparameters, self._known
        kernel = h.rest * matern(squared_distance(features.place, known.place))
        kernel += features.trend @ known.trend.T
        kernel += _LEVEL
        return kernel

    def _prior_variance(self, features: _Features) -> FloatArray:
        variance: FloatArray = np.square(features.trend).sum(axis=1)
        return variance + self.hyperparameters.rest + _LEVEL

    def _leave_out(
        self, precision: FloatArray, z: FloatArray, noise: FloatArray, folds: Sequence[IntArray]
    ) -> Prediction:
        """Predictions (n,) without the fold f of a row: z_f - (P_ff)⁻¹ (P z)_f, covariance P_ff⁻¹.

        (Rasmussen and Williams 2006, section 5.4.2, for several rows.)
        """
        mean, variance = np.empty_like(z), np.empty_like(z)
        for fold in folds:
            covariance = np.linalg.inv(precision[np.ix_(fold, fold)])
            mean[fold] = z[fold] - covariance @ self._alpha[fold]
            variance[fold] = np.diag(covariance) - noise[fold]
        return Prediction(self._clipped(mean), np.maximum(variance, _JITTER))


class _Features(NamedTuple):
    """Rows as the kernel sees them."""

    trend: FloatArray  # (n, K + 1): products are the covariance of the law
    place: FloatArray  # (n, K + o): distances are those of what the law leaves


class _Form(NamedTuple):
    """One epoch of each source, and how large the parts of the kernel are over the rows."""

    n_mixture: int
    unit: FloatArray  # (K,)
    own: float
    common: float
    apart: float  # mean squared distance of two rows in their mixtures
    others_apart: float  # ... and in their other columns

    @classmethod
    def of(cls, X: FloatArray, n_mixture: int, unit: FloatArray | None) -> _Form:
        """The form for rows (n, d)."""
        if unit is None:
            unit = X[:, :n_mixture].mean(axis=0)
        unit = np.maximum(unit, _LEAST_UNIT * unit.mean())
        form = cls(n_mixture, unit, 1.0, 1.0, 1.0, 1.0)
        e = form.epochs(X, 1.0)
        e = e - e.mean(axis=0)
        others = X[:, n_mixture:]
        sizes = [
            np.square(e).sum(axis=1).mean(),
            np.square(e.sum(axis=1)).mean(),
            2.0 * (np.square(e) / unit).sum(axis=1).mean(),
            2.0 * others.var(axis=0).sum(),
        ]
        return cls(n_mixture, unit, *(float(size) if size > 1e-12 else 1.0 for size in sizes))

    def epochs(self, X: FloatArray, rate: float) -> FloatArray:
        """What rows (n, d) have of each source, repeats counting less: (n, K)."""
        W = X[:, : self.n_mixture]
        return np.asarray(-self.unit * np.expm1(-rate * W / self.unit) / rate)

    def features(self, X: FloatArray, e: FloatArray, h: Hyperparameters) -> _Features:
        """Features of rows (n, d) with centered epochs e (n, K)."""
        own, common = np.sqrt(h.own / self.own), np.sqrt(h.common / self.common)
        others = X[:, self.n_mixture :] / (h.other_length * np.sqrt(self.others_apart))
        return _Features(
            np.column_stack([own * e, common * e.sum(axis=1)]),
            np.column_stack([e / np.sqrt(self.unit) / (h.length * np.sqrt(self.apart)), others]),
        )


def _tune(form: _Form, X: FloatArray, z: FloatArray, variance: FloatArray) -> Hyperparameters:
    """Hyperparameters of the greatest posterior density, by L-BFGS from one start."""
    center, width = np.array([_PRIORS[name] for name in Hyperparameters._fields]).T

    bounds = [_BOUNDS[name] for name in Hyperparameters._fields]

    def likelihood(theta: FloatArray) -> tuple[float, FloatArray]:
        return _negative_log_likelihood(theta, form, X, z, variance)

    found = greatest_posterior(likelihood, center, center=center, width=width, bounds=bounds)
    return Hyperparameters(*np.exp(found).tolist())


def _negative_log_likelihood(
    theta: FloatArray, form: _Form, X: FloatArray, z: FloatArray, variance: FloatArray
) -> tuple[float, FloatArray]:
    """Minus the log marginal likelihood and its gradient in the log hyperparameters (7,)."""
    h = Hyperparameters(*np.exp(theta).tolist())
    n = len(z)
    raw = form.epochs(X, h.rate)
    e = raw - raw.mean(axis=0)
    trend, place = form.features(X, e, h)
    rest, slope = matern_with_slope(squared_distance(place, place))
    rest *= h.rest
    slope *= h.rest
    covariance = rest + trend @ trend.T + _LEVEL
    covariance[np.diag_indices(n)] += h.noise + variance + _JITTER
    found = marginal_likelihood(covariance, z)
    if found is None:
        return 1e10, np.zeros_like(theta)
    value, W = found
    M = W * slope
    by_trend = W @ trend  # (n, K + 1): d value / d trend
    by_place = M @ place - place * M.sum(axis=1)[:, None]  # (n, K + o)
    growth = X[:, : form.n_mixture] * np.exp(-h.rate * X[:, : form.n_mixture] / form.unit) - raw
    growth -= growth.mean(axis=0)  # d e / d log rate
    k = form.n_mixture
    d_trend, d_place = form.features(np.zeros_like(X), growth, h)
    moved = by_place * place
    gradient = np.array(
        [
            0.5 * float((by_trend[:, :k] * trend[:, :k]).sum()),
            0.5 * float((by_trend[:, k] * trend[:, k]).sum()),
            0.5 * float((W * rest).sum()),
            0.5 * h.noise * float(np.trace(W)),
            float((by_trend * d_trend).sum() + (by_place * d_place).sum()),
            -float(moved[:, :k].sum()),
            -float(moved[:, k:].sum()),
        ]
    )
    return value, gradient
