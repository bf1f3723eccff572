from __future__ import annotations

import numpy as np
import pytest

from optuna_demix.surrogate._gaussian_process import GaussianProcess
from optuna_demix.surrogate._law import Law
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman


def _repeated(X: np.ndarray, tokens: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """A power law of tokens that repeats add ever less to: neither form of the law."""
    fresh = tokens * (1.0 - np.exp(-0.7 * X / tokens)) @ np.diag(worth)
    return -((0.05 + fresh.sum(axis=1)) ** -0.4)


def _standard(y: np.ndarray) -> np.ndarray:
    return np.asarray((y - y.mean()) / y.std())


def test_fewer_rows_than_sources_rank_new_mixtures_better_than_a_process_does() -> None:
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        k, n = 30, 28
        tokens = rng.dirichlet(np.full(k, 2.0))
        worth = rng.random(k)
        X, new = rng.dirichlet(0.5 * k * tokens, n), rng.dirichlet(0.5 * k * tokens, 400)
        y = _repeated(X, tokens, worth)
        z = _standard(y + 0.05 * y.std() * rng.standard_normal(n))
        folds = make_folds(n, 5, 0)
        truth = _repeated(new, tokens, worth)
        process = GaussianProcess(X, z, folds, n_mixture=k, seed=0).mean(new)
        gains.append(
            spearman(Law(X, z, folds, n_mixture=k).mean(new), truth) - spearman(process, truth)
        )
    assert np.mean(gains) > 0.03


def test_held_out_predictions_have_not_seen_their_scores() -> None:
    rng = np.random.default_rng(1)
    X, z = rng.dirichlet(np.ones(4), 80), _standard(rng.standard_normal(80))
    law = Law(X, z, make_folds(80, 5, 0), n_mixture=4)
    assert abs(spearman(law.held_out.mean, z)) < 0.35


@pytest.mark.parametrize("n_mixture", [3, 4])
def test_columns_behind_its_own_are_left_alone(n_mixture: int) -> None:
    rng = np.random.default_rng(2)
    X = rng.dirichlet(np.ones(4), 40)
    law = Law(X, _standard(np.sqrt(X[:, 0])), make_folds(40, 5, 0), n_mixture=n_mixture)
    wider = np.column_stack([X, np.full(40, np.nan)])
    np.testing.assert_array_equal(law.predict(wider).mean, law.mean(X))


def test_a_law_is_certain_near_its_rows_and_not_beyond() -> None:
    rng = np.random.default_rng(3)
    X = rng.dirichlet(np.full(5, 8.0), 40)
    z = _standard(-np.exp(-3.0 * X[:, 0]) + 0.02 * rng.standard_normal(40))
    law = Law(X, z, make_folds(40, 5, 0), n_mixture=5)
    assert law.predict(np.eye(5)).variance.mean() > 4.0 * law.predict(X).variance.mean()
