from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._gaussian_process import GaussianProcess
from optuna_demix.surrogate._kinds import (
    LinearTrees,
    ProcessAndLinearTrees,
    ProcessWithTrees,
    Task,
    _stack_weight,
    _useful_amount,
)
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman
from tests.surrogate.surfaces import mixtures, quadratic, scaling, scores


def _task(X: np.ndarray, y: np.ndarray, n_mixture: int) -> Task:
    z = (y - y.mean()) / y.std()
    return Task(X, z, make_folds(len(z), 5, 0), n_mixture, 0, 1, np.zeros(len(z)))


def test_published_kind_is_the_released_setting() -> None:
    w = mixtures(90, 4, np.random.default_rng(0))
    settings = {"learning_rate": 0.01, "n_estimators": 300, "random_state": 42}
    model = lightgbm.LGBMRegressor(**settings, n_jobs=1, verbosity=-1).fit(w, quadratic(w))
    prediction = Surrogate("lightgbm", seed=5).fit(w, quadratic(w)).predict(w)
    np.testing.assert_allclose(prediction, model.predict(w), atol=1e-6)


def test_published_kind_predicts_a_constant_below_40_rows() -> None:
    w = mixtures(39, 4, np.random.default_rng(1))
    assert np.ptp(Surrogate("lightgbm").fit(w, quadratic(w)).predict(w)) == 0.0


def test_trees_mend_what_the_process_cannot_bend_to() -> None:
    rng = np.random.default_rng(2)
    X = np.hstack([mixtures(800, 4, rng), rng.random((800, 2))])
    y = X[:, 0] - X[:, 1] ** 2 + 0.5 * (X[:, 4] > 0.5) * (X[:, 2] > 0.2) - 0.3 * (X[:, 5] > 0.3)
    task = _task(X[:300], y[:300], 4)
    both = ProcessWithTrees(task)
    bare = GaussianProcess(task.X, task.z, task.folds, n_mixture=4, seed=0)
    assert both.amount > 0.3
    gain = spearman(both.mean(X[300:]), y[300:]) - spearman(bare.mean(X[300:]), y[300:])
    assert gain > 0.01


def test_trees_stay_away_from_a_process_that_suffices() -> None:
    rng = np.random.default_rng(3)
    w = mixtures(80, 4, rng)
    y = scaling(w) + 0.1 * scaling(w).std() * rng.standard_normal(80)
    task = _task(w, y, 4)
    both = ProcessWithTrees(task)
    bare = GaussianProcess(task.X, task.z, task.folds, n_mixture=4, seed=0)
    assert both.amount == 0.0
    np.testing.assert_array_equal(both.mean(w), bare.mean(w))


def test_mean_of_the_prediction_is_the_mean() -> None:
    rng = np.random.default_rng(4)
    X = np.hstack([mixtures(100, 4, rng), rng.random((100, 1))])
    y = X[:, 0] + (X[:, 4] > 0.5)
    for regressor in (ProcessWithTrees, LinearTrees, ProcessAndLinearTrees):
        fitted = regressor(_task(X, y, 4))
        np.testing.assert_allclose(fitted.predict(X).mean, fitted.mean(X), atol=1e-12)


@pytest.mark.parametrize("regressor", [ProcessWithTrees, LinearTrees, ProcessAndLinearTrees])
def test_held_out_predictions_have_not_seen_their_scores(
    regressor: type[ProcessWithTrees | LinearTrees | ProcessAndLinearTrees],
) -> None:
    rng = np.random.default_rng(5)
    w, y = mixtures(80, 4, rng), rng.standard_normal(80)
    assert abs(spearman(regressor(_task(w, y, 4)).held_out.mean, y)) < 0.35


def test_weight_of_a_stack_follows_the_rows() -> None:
    rng = np.random.default_rng(6)
    for n, low, high in [(20, 0.5, 0.65), (2000, 0.9, 1.0)]:
        z = rng.standard_normal(n)
        good = z + 0.1 * rng.standard_normal(n)
        bad = z + rng.standard_normal(n)
        assert low < _stack_weight(z, good, bad) <= high
        assert 1.0 - high <= _stack_weight(z, bad, good) < 1.0 - low


def test_weight_of_equal_predictions_is_defined() -> None:
    z = np.arange(5.0)
    assert _stack_weight(z, z, z) == 1.0


def test_useless_corrections_are_dropped() -> None:
    rng = np.random.default_rng(7)
    residual = rng.standard_normal(100)
    assert _useful_amount(np.zeros(100), residual) == 0.0
    assert _useful_amount(-residual, residual) == 0.0
    assert _useful_amount(0.5 * residual, residual) == 1.0
    assert _useful_amount(2.0 * residual, residual) == pytest.approx(0.5)


def test_kinds_are_chosen_per_benchmark() -> None:
    rng = np.random.default_rng(8)
    X = np.hstack([mixtures(300, 4, rng), rng.random((300, 4))])
    steps = (X[:, 4:] > 0.5) @ np.array([1.0, 2.0, 4.0, 8.0])
    Y = np.c_[quadratic(X[:, :4]), steps]
    surrogate = Surrogate(n_mixture=4).fit(X, Y)
    assert surrogate.kinds_ == ("gp+lightgbm-linear", "lightgbm-linear+gp")
    assert [sum(shares.values()) for shares in surrogate.shares_] == [1.0, 1.0]
    assert surrogate.shares_[0]["gp"] > 0.6
    assert surrogate.shares_[1]["lightgbm-linear"] > 0.6


def test_benchmarks_are_fitted_apart() -> None:
    w = mixtures(40, 4, np.random.default_rng(9))
    together = Surrogate().fit(w, scores(w)).predict(w)
    for j in range(3):
        alone = Surrogate().fit(w, scores(w)[:, j]).predict(w)
        np.testing.assert_array_equal(together[:, j], alone)
