"""A Gaussian process on powers of the shares, with held-out predictions in closed form.

Score = f(w₁ᵖ, …, w_Kᵖ, other parameters) + noise, where f is a Gaussian process with a Matérn-5/2
kernel and one length scale per column (Rasmussen and Williams 2006, chapters 2 and 5). The power p
is learned with the length scales: p = 1 is smooth in the weights themselves, as the loss of a
merged model is; a small p acts like a logarithm, as in the scaling laws of a domain's share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix.surrogate._regressor import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

    IntArray = NDArray[np.intp]

# Normal priors (mean, standard deviation) on the logarithms of the hyperparameters. A length scale
# of e³ on columns in [0, 1] makes a column irrelevant until the rows say otherwise: most scores
# depend on few components.
_LENGTH_PRIOR = (3.0, 1.5)
_SIGNAL_PRIOR = (0.0, 2.0)
_NOISE_PRIOR = (-4.0, 2.0)
_POWER_PRIOR = (float(np.log(0.5)), 0.5)
_LENGTH_BOUNDS = (-4.0, 6.0)
_SIGNAL_BOUNDS = (-5.0, 5.0)
_NOISE_BOUNDS = (-11.0, 2.0)
_POWER_BOUNDS = (float(np.log(0.2)), 0.0)
_JITTER = 1e-8
_MAX_EVALUATIONS = 60
TUNING_ROWS = 192  # hyperparameters need no more; each evaluation costs their cube
_INDUCING_ROWS = 512  # beyond these the process is projected on that many random rows
_CHUNK = 1024  # rows of a prediction whose kernel still fits a core's cache


class Hyperparameters(NamedTuple):
    """Hyperparameters of the process, in standard units of the score."""

    length: FloatArray  # (d,)
    signal: float
    noise: float
    power: float


class GaussianProcess:
    """The process fitted to one benchmark.

    Args:
        X: Rows (n, d), the first ``n_mixture`` columns being merge weights.
        z: Standardized scores (n,).
        folds: Disjoint folds that cover the rows.
        n_mixture: Number of columns that are merge weights.
        seed: Seed of the choice of rows where not all are used.
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
        variance: FloatArray | None = None,
    ) -> None:
        variance = np.zeros_like(z) if variance is None else variance
        rng = np.random.default_rng([seed, len(z)])
        tuning = some_rows(len(z), TUNING_ROWS, rng)
        self._n_mixture = n_mixture
        self.hyperparameters = tune(X[tuning], z[tuning], n_mixture, variance[tuning])
        self._rows = X[some_rows(len(z), _INDUCING_ROWS, rng)]  # (u, d)
        self._centers = self._features(self._rows)  # (u, d)
        kernel = self._kernel(self._centers)  # (u, u)
        kernel[np.diag_indices_from(kernel)] += _JITTER * self.hyperparameters.signal
        self._whiten = np.linalg.inv(np.linalg.cholesky(kernel))  # (u, u)
        noise = self.hyperparameters.noise
        error = np.sqrt(1.0 + variance / noise)  # (n,): divided by it, rows are equally noisy
        basis = self._kernel(self._features(X)) @ self._whiten.T  # (n, u): f = basis @ beta
        basis /= error[:, None]
        z = z / error
        # Deterministic training conditional (Quiñonero-Candela and Rasmussen 2005, section 5);
        # with every row a center it is the exact process.
        gram = basis.T @ basis
        eye = np.eye(len(gram))
        inverse = np.linalg.inv(np.linalg.cholesky(gram + noise * eye))  # (u, u)
        posterior = noise * (inverse.T @ inverse)  # covariance of beta
        beta = posterior @ (basis.T @ z) / noise  # (u,)
        self._alpha = self._whiten.T @ beta
        # Variance that the rows took away: k' S'S k, S = chol(I - posterior)' whiten.
        learned = np.linalg.cholesky(eye - posterior + 1e-10 * eye)
        self._certainty = learned.T @ self._whiten  # (u, u)
        held_out = self._leave_out(basis @ inverse.T, z - basis @ beta, z, folds)
        self.held_out = Prediction(held_out.mean * error, held_out.variance * error**2)

    def mean(self, X: FloatArray) -> FloatArray:
        """Means (N,) at rows (N, d)."""
        means = [self._kernel(self._features(part)) @ self._alpha for part in _chunks(X)]
        return np.concatenate(means) if means else np.empty(0)

    def predict(self, X: FloatArray) -> Prediction:
        """Predictions (N,) at rows (N, d)."""
        means, variances = [np.empty(0)], [np.empty(0)]
        for part in _chunks(X):
            kernel = self._kernel(self._features(part))  # (c, u)
            certain = kernel @ self._certainty.T
            means.append(kernel @ self._alpha)
            variances.append(self.hyperparameters.signal - np.einsum("cu,cu->c", certain, certain))
        floor = 1e-10 * self.hyperparameters.signal
        return Prediction(np.concatenate(means), np.maximum(np.concatenate(variances), floor))

    def describe(self) -> dict[str, Any]:
        """Hyperparameters, rows of the kernel, and what turns kernels k (u,) into predictions.

        The mean is ``k @ alpha``, the variance ``signal - |factor @ k|²``; the upper
        triangle of the factor is given, row by row.
        """
        return {
            "kind": "process",
            "n_mixture": self._n_mixture,
            "length": self.hyperparameters.length,
            "signal": self.hyperparameters.signal,
            "power": self.hyperparameters.power,
            "rows": self._rows,
            "alpha": self._alpha,
            "factor": upper_triangle(self._certainty),
        }

    def _leave_out(
        self, half: FloatArray, residual: FloatArray, z: FloatArray, folds: Sequence[IntArray]
    ) -> Prediction:
        """Predictions (n,) without the fold f of a row: its residual is (I - H_ff)⁻¹ residual_f.

        Args:
            half: Factor (n, u) of the hat matrix, H = half half'.
            residual: Residuals (n,) of the fit to all rows.
            z: Standardized scores (n,).
            folds: Disjoint folds that cover the rows.
        """
        noise = self.hyperparameters.noise
        if len(z) > _INDUCING_ROWS:  # one row at a time: a fold is too large to invert
            free = np.maximum(1.0 - np.einsum("nu,nu->n", half, half), 1e-6)
            return Prediction(z - residual / free, noise * (1.0 / free - 1.0))
        mean, variance = np.empty_like(z), np.empty_like(z)
        for fold in folds:
            free = np.eye(len(fold)) - half[fold] @ half[fold].T
            inverse = np.linalg.inv(free + 1e-9 * np.eye(len(fold)))
            mean[fold] = z[fold] - inverse @ residual[fold]
            variance[fold] = noise * np.maximum(np.diag(inverse) - 1.0, 0.0)
        return Prediction(mean, variance)

    def _features(self, X: FloatArray) -> FloatArray:
        return warp(X, self._n_mixture, self.hyperparameters.power) / self.hyperparameters.length

    def _kernel(self, A: FloatArray) -> FloatArray:
        """Covariances (n, u) between features (n, d) and the centers."""
        kernel = matern(squared_distance(A, self._centers))
        kernel *= self.hyperparameters.signal
        return kernel


def warp(X: FloatArray, n_mixture: int, power: float) -> FloatArray:
    """Rows (n, d) with the merge weights, the first columns, raised to a power."""
    warped = np.array(X, dtype=float)
    warped[:, :n_mixture] = np.maximum(X[:, :n_mixture], 0.0) ** power
    return warped


def tune(
    X: FloatArray, z: FloatArray, n_mixture: int, variance: FloatArray | float = 0.0
) -> Hyperparameters:
    """Hyperparameters of the greatest posterior density, by L-BFGS from one start.

    Args:
        X: Rows (n, d), the first ``n_mixture`` columns being merge weights.
        z: Standardized scores (n,).
        n_mixture: Number of columns that are merge weights.
        variance: Known variance (n,) of the error of each score, beside the noise.
    """
    d = X.shape[1]
    priors = [_LENGTH_PRIOR] * d + [_SIGNAL_PRIOR, _NOISE_PRIOR, _POWER_PRIOR]
    bounds = [_LENGTH_BOUNDS] * d + [_SIGNAL_BOUNDS, _NOISE_BOUNDS, _POWER_BOUNDS]
    center, width = np.array(priors).T
    # From length scales of 1, the width of a column: from the prior's own the gradient is flat.
    start = np.concatenate([np.zeros(d), center[d:]])

    def likelihood(theta: FloatArray) -> tuple[float, FloatArray]:
        return _negative_log_likelihood(theta, X, z, n_mixture, variance)

    exp = np.exp(greatest_posterior(likelihood, start, center=center, width=width, bounds=bounds))
    return Hyperparameters(exp[:d], float(exp[d]), float(exp[d + 1]), float(exp[d + 2]))


def _negative_log_likelihood(
    theta: FloatArray, X: FloatArray, z: FloatArray, n_mixture: int, variance: FloatArray | float
) -> tuple[float, FloatArray]:
    """Minus the log marginal likelihood and its gradient in the log hyperparameters (d + 3,)."""
    n, d = X.shape
    inverse_length = np.exp(-theta[:d])
    signal, noise, power = np.exp(theta[d:])
    warped = warp(X, n_mixture, power)
    A = warped * inverse_length  # (n, d)
    kernel, slope = matern_with_slope(squared_distance(A, A))  # (n, n)
    kernel *= signal
    slope *= signal
    covariance = kernel.copy()
    covariance.flat[:: n + 1] += noise + variance + _JITTER * signal
    found = marginal_likelihood(covariance, z)
    if found is None:
        return 1e10, np.zeros_like(theta)
    value, W = found
    # Through a squared distance ½ tr(W dK) is a product with M = W * slope, so that no (n, n, d)
    # array is ever formed.
    M = W * slope
    by_feature = A * M.sum(axis=1)[:, None] - M @ A  # (n, d): minus d value / d A
    gradient = np.empty_like(theta)
    gradient[:d] = (by_feature * A).sum(axis=0)
    gradient[d] = 0.5 * float((W * kernel).sum())
    gradient[d + 1] = 0.5 * noise * float(np.trace(W))
    shares = warped[:, :n_mixture]  # d wᵖ / d log p = wᵖ log wᵖ
    growth = shares * np.log(np.maximum(shares, 1e-12)) * inverse_length[:n_mixture]
    gradient[d + 2] = -float((by_feature[:, :n_mixture] * growth).sum())
    return value, gradient


def greatest_posterior(
    likelihood: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    *,
    center: FloatArray,
    width: FloatArray,
    bounds: Sequence[tuple[float, float]],
) -> FloatArray:
    """Parameters (p,) of the greatest posterior density, by L-BFGS.

    Args:
        likelihood: Minus the log likelihood, and its gradient (p,).
        start: Where to begin, (p,).
        center: Means (p,) of the normal priors.
        width: Their standard deviations (p,).
        bounds: Least and greatest value of each parameter.
    """
    from scipy.optimize import minimize

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = likelihood(theta)
        pull = (theta - center) / width
        return value + 0.5 * float(pull @ pull), gradient + pull / width

    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxfun": _MAX_EVALUATIONS},
    )
    return np.asarray(found.x)


def marginal_likelihood(covariance: FloatArray, z: FloatArray) -> tuple[float, FloatArray] | None:
    """Minus the log marginal likelihood of scores z (n,), and W (n, n) of its gradient.

    A change dK of the covariance (n, n) changes the value by ``½ tr(W dK)``, W = K⁻¹ - αα'
    (Rasmussen and Williams, equation 5.9).

    Returns:
        Both; ``None`` if the covariance is not positive definite.
    """
    from scipy.linalg import lapack

    lower, failed = lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        return None
    precision = lapack.dpotri(lower, lower=1)[0]  # its lower half; above the diagonal are zeros
    diagonal = precision.diagonal().copy()
    precision = precision + precision.T
    np.fill_diagonal(precision, diagonal)
    alpha = precision @ z
    value = 0.5 * float(z @ alpha) + float(np.log(np.diag(lower)).sum())
    return value, precision - np.outer(alpha, alpha)


def upper_triangle(factor: NDArray[np.floating[Any]]) -> FloatArray:
    """R of S'S = R'R for a factor S (n, n): half of the numbers, row by row."""
    triangle = np.linalg.qr(factor, mode="r")
    return np.asarray(triangle[np.triu(np.ones_like(triangle, dtype=bool))])


def squared_distance(A: FloatArray, B: FloatArray) -> FloatArray:
    """Squared distances (n, m) between rows (n, d) and (m, d)."""
    squares: FloatArray = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2.0 * (A @ B.T)
    np.maximum(squares, 0.0, out=squares)
    return squares


def matern(squared: FloatArray) -> FloatArray:
    """Matérn-5/2 kernel of squared distances, which are overwritten: half of a prediction's time.

    k = (1 + r + r²/3) exp(-r), r² = 5 times the squared distance.
    """
    squared *= 5.0
    r = np.sqrt(squared)
    squared *= 1.0 / 3.0
    squared += r
    squared += 1.0
    np.negative(r, out=r)
    squared *= np.exp(r, out=r)
    return squared


def matern_with_slope(squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The kernel of squared distances, and the factor -2 dk/dr² of its gradients."""
    kernel = 5.0 * squared
    r = np.sqrt(kernel)
    decay = np.exp(-r)
    kernel *= 1.0 / 3.0
    kernel += r
    kernel += 1.0
    kernel *= decay
    slope: FloatArray = 5.0 / 3.0 * (1.0 + r) * decay
    return kernel, slope


def _chunks(X: FloatArray) -> Iterator[FloatArray]:
    """Rows (N, d) in parts of at most ``_CHUNK``."""
    return (X[start : start + _CHUNK] for start in range(0, len(X), _CHUNK))


def some_rows(n: int, most: int, rng: np.random.Generator) -> IntArray:
    """All n rows in order, or a random choice of ``most`` of them."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
