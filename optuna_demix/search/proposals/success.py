"""Where trials fail: a Gaussian process classifier of those that scored and those that did not.

The log odds of success are a Gaussian process of the square roots of the shares, in which
distances are bounded for any number of components (Hellinger distances), and of the other
parameters in [0, 1]:

    P(success at x) = 1 / (1 + exp(-f(x))),    f ~ GP(0, b² + s² matern(|x - x'| / l))

Given the trials, f is taken as normal about its mode (Laplace's approximation; Rasmussen and
Williams 2006, algorithms 3.1 and 3.2). The length scale l and the signal s² are those of a grid
with the largest approximate evidence: failures that can strike anywhere leave f flat.

What a candidate is worth follows from its probability of success, as in Gelbart, Snoek and Adams
2014 ("Bayesian Optimization with Unknown Constraints") and, for evaluations that fail, Bachoc,
Helbert and Picheny 2020 ("Gaussian process optimization with failures: classification and
convergence proof").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optuna_demix.surrogate._threads import one_blas_thread

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray

_BIAS = 4.0  # prior variance b² of the log odds that all mixtures have in common
_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)  # the largest distance between two mixtures is √2
_SIGNALS = (1.0, 8.0, 64.0, 512.0)  # the last makes a border sharp
_ROWS = 256  # trials that are used; the time grows with their cube
_CHUNK = 4096  # rows of a prediction
_MAX_STEPS = 50
_MAX_HALVINGS = 10
_TOLERANCE = 1e-9  # nats


class Success:
    """Log odds of success, fitted to trials.

    Args:
        good: Rows (n, d) of trials that succeeded.
        bad: Rows (f, d) of trials that failed.
        n_mixture: Number of leading columns that are merge weights.
    """

    def __init__(self, good: FloatArray, bad: FloatArray, n_mixture: int) -> None:
        self._n_mixture = n_mixture
        self._mode: _Mode | None = None
        if len(bad) == 0:
            return
        rng = np.random.default_rng([len(good), len(bad)])
        few_bad = _some_rows(bad, max(_ROWS // 2, _ROWS - len(good)), rng)
        few_good = _some_rows(good, _ROWS - len(few_bad), rng)
        self._X = self._features(np.concatenate([few_good, few_bad]))
        y = np.repeat([1.0, -1.0], [len(few_good), len(few_bad)])
        # More of one kind left out shifts the log odds, and nothing else (Prentice, Pyke 1979).
        kept_good, kept_bad = len(few_good) / max(len(good), 1), len(few_bad) / len(bad)
        self._shift = float(np.log(kept_bad / kept_good)) if kept_good else 0.0
        distance = _distance(self._X, self._X)
        with one_blas_thread():
            for length in _LENGTHS:
                shape = _matern(distance / length)
                for signal in _SIGNALS:
                    mode = _find_mode(_BIAS + signal * shape, y)
                    if self._mode is None or mode.evidence > self._mode.evidence:
                        self._mode, self._length, self._signal = mode, length, signal

    def log_odds(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log odds (N,) at rows (N, d) and their standard deviations (N,).

        They are infinite as long as no trial has failed.
        """
        from scipy.linalg import solve_triangular

        mode = self._mode
        if mode is None:
            return np.full(len(X), np.inf), np.zeros(len(X))
        mean, variance = np.empty(len(X)), np.empty(len(X))
        for start in range(0, len(X), _CHUNK):
            part = slice(start, start + _CHUNK)
            distance = _distance(self._features(X[part]), self._X)
            across = _BIAS + self._signal * _matern(distance / self._length)  # (N, n)
            with one_blas_thread():
                mean[part] = across @ mode.slope + self._shift
                half = solve_triangular(mode.lower, mode.root[:, None] * across.T, lower=True)
            variance[part] = _BIAS + self._signal - (half * half).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _features(self, X: FloatArray) -> FloatArray:
        features = X.copy()
        np.sqrt(np.maximum(X[:, : self._n_mixture], 0.0), out=features[:, : self._n_mixture])
        return features


def probability(log_odds: FloatArray, std: FloatArray | float = 0.0) -> FloatArray:
    """Probabilities (n,) from normal log odds (MacKay 1992, equation 10)."""
    mean: FloatArray = _logistic(log_odds / np.sqrt(1.0 + np.pi / 8.0 * np.square(std)))
    return mean


class _Mode(NamedTuple):
    """The posterior's mode and what predictions need of it."""

    slope: FloatArray  # of the log likelihood there (n,)
    root: FloatArray  # square root of its negative curvature (n,)
    lower: FloatArray  # Cholesky factor (n, n) of 1 + root kernel root
    evidence: float  # approximate log marginal likelihood


def _find_mode(kernel: FloatArray, y: FloatArray) -> _Mode:
    """The most likely log odds by Newton's method (Rasmussen and Williams, algorithm 3.1).

    Args:
        kernel: Prior covariance (n, n).
        y: 1 for a success and -1 for a failure, (n,).
    """
    from scipy.linalg import solve_triangular

    def value_at(a: FloatArray) -> float:
        f = kernel @ a
        return -0.5 * float(a @ f) - float(np.logaddexp(0.0, -y * f).sum())

    a = np.zeros(len(y))
    value = value_at(a)
    for _ in range(_MAX_STEPS):
        f = kernel @ a
        p = _logistic(f)
        slope = 0.5 * (y + 1.0) - p
        curvature = p * (1.0 - p)
        root = np.sqrt(curvature)
        scaled: FloatArray = root[:, None] * kernel * root
        scaled[np.diag_indices(len(y))] += 1.0
        lower: FloatArray = np.linalg.cholesky(scaled).astype(float, copy=False)
        b = curvature * f + slope
        half = solve_triangular(lower, root * (kernel @ b), lower=True)
        step = b - root * solve_triangular(lower, half, lower=True, trans=1) - a
        for _ in range(_MAX_HALVINGS):
            found = value_at(a + step)
            if found >= value:
                break
            step *= 0.5
        gain = found - value
        if gain < _TOLERANCE:
            break
        a, value = a + step, found
    return _Mode(slope, root, lower, value - float(np.log(np.diag(lower)).sum()))


def _some_rows(X: FloatArray, most: int, rng: np.random.Generator) -> FloatArray:
    """All rows (n, d), or a random choice of ``most`` of them in their order."""
    return X if len(X) <= most else X[np.sort(rng.choice(len(X), most, replace=False))]


def _distance(A: FloatArray, B: FloatArray) -> FloatArray:
    """Distances (n, m) between rows (n, d) and (m, d)."""
    from scipy.spatial.distance import cdist

    distance: FloatArray = cdist(A, B)
    return distance


def _matern(distance: FloatArray) -> FloatArray:
    """Matérn-5/2 kernel of distances in length scales."""
    r = np.sqrt(5.0) * distance
    shape: FloatArray = (1.0 + r + r * r / 3.0) * np.exp(-r)
    return shape


def _logistic(f: FloatArray) -> FloatArray:
    odds: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * f))
    return odds
