"""``Surrogate``: one regressor per benchmark, chosen and weighted by held-out error."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from optuna_demix._wording import unknown_name
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.surrogate._data import (
    center_scale,
    checked_errors,
    checked_prior,
    checked_rows,
    checked_scores,
    checked_unit,
)
from optuna_demix.surrogate._kinds import Task, build, check_kind
from optuna_demix.surrogate._prior_mean import AsGiven, FromPriorMean
from optuna_demix.surrogate._regressor import Constant, make_folds
from optuna_demix.surrogate._threads import one_blas_thread
from optuna_demix.surrogate._validation import Validation, spearman, top_quarter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.surrogate._description import Description
    from optuna_demix.surrogate._regressor import Regressor

_Z90 = 1.6449  # half width of a 90 % interval in standard deviations
_MIN_ROWS = 4  # below, a benchmark is predicted by its mean
_MIN_NOISE = 1e-12  # variance, relative to that of the scores
_PARAMETERS = ("kind", "seed", "n_mixture", "n_threads", "n_members", "prior_mean", "unit")


@dataclass(frozen=True)
class Fitted:
    """One benchmark: its regressor in standard units and the way back to the scores."""

    regressor: Regressor
    center: float
    scale: float
    noise: float  # in scores

    def mean(self, X: FloatArray, p: FloatArray) -> FloatArray:
        return self.center + self.scale * self.regressor.mean(self._rows(X, p))

    def predict(self, X: FloatArray, p: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean, variance = self.regressor.predict(self._rows(X, p))
        return self.center + self.scale * mean, self.scale * np.sqrt(variance)

    def _rows(self, X: FloatArray, p: FloatArray) -> FloatArray:
        starts_from_it = isinstance(self.regressor, (AsGiven, FromPriorMean))
        return np.column_stack([X, p]) if starts_from_it else X


class Surrogate:
    """Regression from mixtures to benchmark scores: a separate regressor for every benchmark.

    It follows the conventions of scikit-learn: parameters are kept as they are given and checked
    by :meth:`fit`, which learns the attributes that end in ``_``.

    Kinds:

    - ``"auto"``: the mean of the Gaussian process and ``"lightgbm-linear"``, with weights for each
      benchmark from held-out errors; nearly even with few rows. From 24 sources on, a ``"law"``
      of saturating shares: alone, with the process from 1 row a source, trees from 4, to 512 rows.
    - ``"gp"``: a Gaussian process on powers of the shares, as LightGBM's base margin, with linear
      trees on what it leaves, as far as held-out rows confirm them.
    - ``"lightgbm-linear"``: LightGBM with four leaves that hold linear models of the cube roots of
      the shares; leaf size follows the number of rows; one member per fold left out.
    - ``"lightgbm"``: as the released code of DeMix sets it (300 iterations at 0.01, defaults
      otherwise). It predicts a constant below 40 rows.

    Example:
        >>> import numpy as np
        >>> w = np.random.default_rng(0).dirichlet(np.ones(3), size=40)
        >>> scores = np.sqrt(w[:, :2])  # two benchmarks
        >>> surrogate = Surrogate(seed=0).fit(w, scores)
        >>> mean, std = surrogate.predict(w[:5], return_std=True)
        >>> mean.shape, std.shape
        ((5, 2), (5, 2))

    Args:
        kind: One of the kinds above.
        seed: Seed of folds, members and choices of rows. Equal data, seed and number of BLAS
            threads give equal predictions, in every process.
        n_mixture: Number of leading columns of ``X`` that are merge weights (or shares); ``None``
            for all. The others are parameters encoded in [0, 1].
        n_threads: Threads of LightGBM.
        n_members: Members of each LightGBM ensemble, and folds of the held-out errors.
        prior_mean: A cheap prediction of the scores to start from: a function of rows (n, d) that
            returns scores shaped like ``Y``, NaN where it has none. For each benchmark the
            regressors above are joined with one of what a line ``a + b p`` in its prediction
            p leaves, b not negative (for ``"auto"`` and ``"gp"``, the Gaussian process), with
            weights from held-out errors: a misleading one costs next to nothing. Below 4 rows
            the prediction is p itself. A benchmark with NaN, or equal p, in the rows of the fit
            does without, and so does a row with NaN.
        unit: Share (K,) of one epoch of each source, such as the prior, for the law of
            ``"auto"``; ``None`` for its mean in the rows.

    Attributes:
        shares_: Weight of each kind in the prediction of each benchmark (m,); ``"prior"`` is that
            of the regressor that starts from the prior mean.
        kinds_: Kinds of ``shares_`` for each benchmark (m,), the heaviest first, such as
            ``"gp+lightgbm-linear"``; ``"constant"`` where the scores say nothing.
        noise_: Residual standard deviation (m,) of a score about its prediction, in scores: the
            part of held-out error that the standard deviation of the prediction does not explain.
        n_features_in_: Number d of columns of ``X``.
    """

    def __init__(
        self,
        kind: str = "auto",
        *,
        seed: int = 0,
        n_mixture: int | None = None,
        n_threads: int = 1,
        n_members: int = 5,
        prior_mean: Callable[[FloatArray], ArrayLike] | None = None,
        unit: ArrayLike | None = None,
    ) -> None:
        self.kind = kind
        self.seed = seed
        self.n_mixture = n_mixture
        self.n_threads = n_threads
        self.n_members = n_members
        self.prior_mean = prior_mean
        self.unit = unit

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor by name.

        Args:
            deep: For scikit-learn; there are no nested estimators.
        """
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> Surrogate:
        """Set parameters of the constructor; :meth:`fit` checks them.

        Raises:
            ConfigError: If there is no such parameter.
        """
        for name in params:
            if name not in _PARAMETERS:
                raise ConfigError(unknown_name(name, _PARAMETERS, "parameter of Surrogate"))
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, X: ArrayLike, Y: ArrayLike, errors: ArrayLike | None = None) -> Surrogate:
        """Fit every benchmark to the rows that have its score.

        Args:
            X: Rows (n, d): merge weights, then other parameters in [0, 1]; finite.
            Y: Scores (n, m) or (n,). NaN is a missing score; ±inf is drawn in to just beyond the
                worst and best finite score of its benchmark.
            errors: Standard errors of scores that are estimates themselves, shaped like ``Y``; 0
                for those that are as noisy as any other. ``None`` for zeros.

        Raises:
            ConfigError: If the kind is unknown, a number is out of range, or the prior mean is
                not shaped like Y.
            InputError: If the arrays do not fit each other, X is not finite, or an error is
                negative or not finite.
        """
        self._check_parameters()
        rows = checked_rows(X, self.n_mixture)
        scores = checked_scores(Y, len(rows))
        self.n_features_in_ = rows.shape[1]
        self._is_single = np.ndim(Y) == 1
        self._X, self._Y = rows, scores
        self._errors = checked_errors(errors, scores.shape)
        with one_blas_thread():
            self._fitted = [
                self._fit_one(rows, y, e, p)
                for y, e, p in zip(scores.T, self._errors.T, self._prior(rows).T, strict=True)
            ]
        self.shares_ = tuple(fitted.regressor.shares for fitted in self._fitted)
        self.kinds_ = tuple("+".join(_by_weight(shares)) for shares in self.shares_)
        self.noise_ = np.array([fitted.noise for fitted in self._fitted])
        return self

    @property
    def held_out_(self) -> FloatArray:
        """Scores (n, m) of the rows of the fit, each predicted without the fold it lies in.

        NaN where a score is missing.
        """
        predicted = np.full_like(self._Y, np.nan)
        for j, fitted in enumerate(self._fitted):
            known = np.isfinite(self._Y[:, j])
            predicted[known, j] = fitted.center + fitted.scale * fitted.regressor.held_out.mean
        return predicted

    def noise_among(self, rows: NDArray[np.bool_]) -> FloatArray:
        """``noise_`` (m,) as some of the rows (n,) of the fit alone have it.

        A score that is smooth where it is good and steep where it is bad has errors that the
        whole does not tell.
        """
        noise = self.noise_.copy()
        for j, fitted in enumerate(self._fitted):
            known = np.isfinite(self._Y[:, j])
            if isinstance(fitted.regressor, (Constant, AsGiven)) or not rows[known].any():
                continue
            z = (self._Y[known, j] - fitted.center) / fitted.scale
            variance = (self._errors[known, j] / fitted.scale) ** 2
            left = _unexplained(fitted.regressor, z, variance, rows[known])
            noise[j] = fitted.scale * np.sqrt(left)
        return noise

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> FloatArray: ...

    @overload
    def predict(
        self, X: ArrayLike, return_std: Literal[True]
    ) -> tuple[FloatArray, FloatArray]: ...

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predict the scores of mixtures.

        Args:
            X: Rows (N, d), as in :meth:`fit`.
            return_std: Return the standard deviation of the prediction as well: what is not known
                of the mixture, and what more rows would shrink. A new score scatters about its
                prediction with variance ``std**2 + noise_**2``.

        Returns:
            Scores (N, m), or (N,) if ``Y`` was (n,); with ``return_std`` also their standard
            deviations, of the same shape.

        Raises:
            InputError: If nothing was fitted yet, or X does not fit the data.
        """
        rows = self._new_rows(X)
        mean, std = (np.empty((len(rows), len(self._fitted))) for _ in range(2))
        prior = self._prior(rows)
        with one_blas_thread():
            for j, fitted in enumerate(self._fitted):
                if return_std:
                    mean[:, j], std[:, j] = fitted.predict(rows, prior[:, j])
                else:
                    mean[:, j] = fitted.mean(rows, prior[:, j])
        if self._is_single:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def describe(self, X: ArrayLike, *, most_bytes: float = 2e6) -> Description:
        """What another program needs to predict as this surrogate does.

        Args:
            X: Rows (N, d), some hundred in random order, near which approximations have to hold:
                a prior mean is any function, and is replaced by a Gaussian process.
            most_bytes: Size of the arrays from which on benchmarks are approximated as a whole.

        Raises:
            InputError: If nothing was fitted yet, or X does not fit the data.
        """
        from optuna_demix.surrogate._description import describe

        rows = self._new_rows(X)
        n_mixture = self.n_features_in_ if self.n_mixture is None else self.n_mixture
        with one_blas_thread():
            return describe(
                self._fitted,
                rows,
                self._prior(rows),
                n_mixture=n_mixture,
                seed=self.seed,
                most_bytes=most_bytes,
            )

    def validate(self, n_splits: int = 5) -> Validation:
        """Refit without each of ``n_splits`` folds and compare what it predicts there.

        Everything is learned again without the fold, weights and hyperparameters included.

        Raises:
            InputError: If nothing was fitted yet, or there are fewer than two splits.
        """
        self._check_fitted("validate()")
        if n_splits < 2:
            raise InputError(f"validate needs n_splits of at least 2, got {n_splits}; give more")
        X, Y = self._X, self._Y
        mean, std, noise = (np.full_like(Y, np.nan) for _ in range(3))
        for fold in make_folds(len(X), n_splits, self.seed + 1):
            kept = np.setdiff1d(np.arange(len(X)), fold, assume_unique=True)
            if len(kept) == 0:
                continue
            part = Surrogate(**self.get_params()).fit(X[kept], Y[kept], self._errors[kept])
            mean[fold], std[fold] = part.predict(X[fold], return_std=True)
            noise[fold] = np.hypot(part.noise_, self._errors[fold])
        seen = np.isfinite(Y) & np.isfinite(mean)
        inside = np.abs(Y - mean) <= _Z90 * np.hypot(std, noise)
        ranks, top_ranks, coverage = [], [], []
        for y, prediction, hit, rows in zip(Y.T, mean.T, inside.T, seen.T, strict=True):
            y, prediction = y[rows], prediction[rows]
            top = top_quarter(y)
            ranks.append(spearman(prediction, y))
            top_ranks.append(spearman(prediction[top], y[top]))
            coverage.append(float(hit[rows].mean()) if rows.any() else float("nan"))
        return Validation(
            spearman=np.array(ranks),
            spearman_top_quarter=np.array(top_ranks),
            coverage=np.array(coverage),
            n=seen.sum(axis=0),
            kinds=self.kinds_,
            mean=mean,
            std=std,
            noise=noise,
        )

    def _check_parameters(self) -> None:
        """Refuse parameters that cannot be meant, with what was expected and what came."""
        check_kind(self.kind)
        least = {"seed": 0, "n_mixture": 0, "n_threads": 1, "n_members": 2}
        for name, bound in least.items():
            value = getattr(self, name)
            is_free = value is None and name == "n_mixture"
            if not is_free and (not isinstance(value, Integral) or value < bound):
                raise ConfigError(
                    f"{name} of a surrogate must be a whole number of at least {bound}, got "
                    f"{value!r}; correct it"
                )

    def _check_fitted(self, doing: str) -> None:
        if not hasattr(self, "_fitted"):
            raise InputError(f"this surrogate has no data yet; call fit(X, Y) before {doing}")

    def _new_rows(self, X: ArrayLike) -> FloatArray:
        """Rows (N, d) to predict, checked."""
        self._check_fitted("predicting")
        rows = checked_rows(X, self.n_mixture)
        if rows.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {rows.shape[1]} columns but the surrogate was fitted to "
                f"{self.n_features_in_}; give as many"
            )
        return rows

    def _prior(self, rows: FloatArray) -> FloatArray:
        """Prior mean (N, m) of rows (N, d), NaN where there is none."""
        shape = (len(rows), self._Y.shape[1])
        if self.prior_mean is None or len(rows) == 0:
            return np.full(shape, np.nan)
        return checked_prior(self.prior_mean(rows), shape)

    def _fit_one(self, X: FloatArray, y: FloatArray, errors: FloatArray, p: FloatArray) -> Fitted:
        known = np.flatnonzero(np.isfinite(y))
        X, y, errors, p = X[known], y[known], errors[known], p[known]
        has_prior = self.prior_mean is not None and bool(np.isfinite(p).all())
        center, scale = center_scale(y)
        if len(y) < _MIN_ROWS and has_prior:
            as_given = AsGiven(p, y)
            return Fitted(as_given, 0.0, 1.0, as_given.size)
        if len(y) < _MIN_ROWS or scale == 0.0:
            return _constant(len(y), center, scale)
        z = (y - center) / scale
        folds = make_folds(len(y), self.n_members, self.seed)
        n_mixture = X.shape[1] if self.n_mixture is None else self.n_mixture
        variance = (errors / scale) ** 2
        unit = checked_unit(self.unit, n_mixture)
        task = Task(X, z, folds, n_mixture, self.seed, self.n_threads, variance, unit)
        starts = has_prior and center_scale(p)[1] > 0.0
        regressor = FromPriorMean(self.kind, task, p) if starts else build(self.kind, task)
        noise = _unexplained(regressor, z, variance, np.full(len(z), True))
        return Fitted(regressor, center, scale, scale * float(np.sqrt(noise)))


def _unexplained(
    regressor: Regressor, z: FloatArray, variance: FloatArray, rows: NDArray[np.bool_]
) -> float:
    """Mean square of the held-out errors of some rows that neither variance accounts for."""
    squares = (z - regressor.held_out.mean) ** 2 - variance
    error = regressor.optimism * max(float(np.mean(squares[rows])), 0.0)
    explained = float(np.mean(regressor.held_out.variance[rows]))
    return max(error - explained, 0.1 * error, _MIN_NOISE)


def _constant(n: int, center: float, scale: float) -> Fitted:
    """A benchmark predicted by its mean; the doubt about one that never varied is its own size."""
    size = scale or abs(center) or 1.0
    noise = size if scale > 0.0 else size / max(n, 1)
    return Fitted(Constant(n), center, size, noise)


def _by_weight(shares: dict[str, float]) -> list[str]:
    return sorted(shares, key=lambda kind: -shares[kind])
