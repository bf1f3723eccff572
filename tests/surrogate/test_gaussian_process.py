from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.surrogate import _gaussian_process
from optuna_demix.surrogate._gaussian_process import (
    GaussianProcess,
    _negative_log_likelihood,
    matern,
    tune,
    warp,
)
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman
from tests.surrogate.surfaces import mixtures, quadratic, scaling


def _rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.hstack([mixtures(n, 4, rng), rng.random((n, 1))])
    y = quadratic(X[:, :4]) + 0.3 * X[:, 4] + 0.05 * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def _covariance(process: GaussianProcess, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Covariance written from the definition, pair by pair."""
    hyper = process.hyperparameters
    a, b = (warp(rows, 4, hyper.power) / hyper.length for rows in (A, B))
    r = np.sqrt(5.0) * np.linalg.norm(a[:, None] - b[None], axis=2)
    return hyper.signal * (1.0 + r + r**2 / 3.0) * np.exp(-r)


UNEQUAL = np.linspace(0.0, 0.5, 30) ** 2


@pytest.mark.parametrize("variance", [None, UNEQUAL])
def test_predictions_are_the_textbook_posterior(variance: np.ndarray | None) -> None:
    X, z = _rows(30, 0)
    process = GaussianProcess(X, z, make_folds(30, 5, 0), n_mixture=4, seed=0, variance=variance)
    new = _rows(12, 1)[0]
    across = _covariance(process, new, X)
    noise = process.hyperparameters.noise + (0.0 if variance is None else np.diag(variance))
    inverse = np.linalg.inv(_covariance(process, X, X) + noise * np.eye(30))
    expected = process.hyperparameters.signal - np.einsum("ij,jk,ik->i", across, inverse, across)
    mean, variance = process.predict(new)
    np.testing.assert_allclose(mean, across @ inverse @ z, atol=1e-5)
    np.testing.assert_allclose(variance, expected, atol=1e-5)


@pytest.mark.parametrize("variance", [np.zeros(30), UNEQUAL])
def test_held_out_predictions_are_those_of_a_fit_without_the_fold(variance: np.ndarray) -> None:
    X, z = _rows(30, 2)
    folds = make_folds(30, 5, 0)
    process = GaussianProcess(X, z, folds, n_mixture=4, seed=0, variance=variance)
    for fold in folds:
        kept = np.setdiff1d(np.arange(30), fold)
        across = _covariance(process, X[fold], X[kept])
        noise = np.diag(process.hyperparameters.noise + variance[kept])
        solved = np.linalg.solve(_covariance(process, X[kept], X[kept]) + noise, across.T)
        np.testing.assert_allclose(process.held_out.mean[fold], solved.T @ z[kept], atol=1e-4)
        expected = process.hyperparameters.signal - np.sum(across * solved.T, axis=1)
        np.testing.assert_allclose(process.held_out.variance[fold], expected, atol=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_gradient_of_the_likelihood(seed: int) -> None:
    X, z = _rows(15, seed)
    theta = np.random.default_rng(seed).normal(0.0, 0.5, size=8) + [0, 0, 0, 0, 0, 0, -3, -0.7]
    gradient = _negative_log_likelihood(theta, X, z, 4, UNEQUAL[:15])[1]
    for j in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[j]
        above, below = (
            _negative_log_likelihood(theta + sign * step, X, z, 4, UNEQUAL[:15])[0]
            for sign in (1, -1)
        )
        assert gradient[j] == pytest.approx((above - below) / 2e-5, abs=1e-3, rel=1e-3)


def test_power_is_learned() -> None:
    rng = np.random.default_rng(3)
    w = mixtures(100, 4, rng)
    powers = []
    for y in (quadratic(w), scaling(w)):
        powers.append(tune(w, (y - y.mean()) / y.std(), 4).power)
    assert powers[0] > 0.7
    assert powers[1] < 0.5


def test_columns_that_do_nothing_get_long_length_scales() -> None:
    rng = np.random.default_rng(4)
    w = mixtures(80, 6, rng)
    y = np.sqrt(w[:, 0]) + 0.05 * rng.standard_normal(80)
    length = tune(w, (y - y.mean()) / y.std(), 6).length
    assert length[0] < 0.3 * length[1:].min()


def test_projection_on_some_rows_hardly_changes_the_ranking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, z = _rows(300, 5)
    new = _rows(200, 6)[0]
    folds = make_folds(300, 5, 0)
    exact = GaussianProcess(X, z, folds, n_mixture=4, seed=0)
    monkeypatch.setattr(_gaussian_process, "_INDUCING_ROWS", 120)
    projected = GaussianProcess(X, z, folds, n_mixture=4, seed=0)
    assert spearman(exact.mean(new), projected.mean(new)) > 0.99
    assert spearman(exact.held_out.mean, projected.held_out.mean) > 0.98
    assert np.isfinite(projected.predict(new).variance).all()


def test_chunks_do_not_show() -> None:
    X, z = _rows(40, 7)
    process = GaussianProcess(X, z, make_folds(40, 5, 0), n_mixture=4, seed=0)
    new = _rows(_gaussian_process._CHUNK + 10, 8)[0]
    whole = process.predict(new)
    np.testing.assert_allclose(whole.mean[-10:], process.mean(new[-10:]), atol=1e-10)
    np.testing.assert_allclose(
        whole.variance[-10:], process.predict(new[-10:]).variance, atol=1e-8
    )


def test_kernel_at_a_point_is_one() -> None:
    np.testing.assert_allclose(matern(np.zeros((1, 1))), 1.0)
