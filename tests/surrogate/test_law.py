from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._law import Law
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman


def _standard(y: np.ndarray) -> np.ndarray:
    return np.asarray((y - y.mean()) / y.std())


def _in_epochs(X: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return -np.exp(-(1.0 - np.exp(-X / tokens)) @ np.linspace(0.0, 1.0, len(tokens)))


def _in_shares(X: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return -np.exp(-X @ np.linspace(-3.0, 3.0, len(tokens)))


@pytest.mark.parametrize("surface", [_in_epochs, _in_shares])
def test_laws_of_either_form_are_found(
    surface: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    rng = np.random.default_rng(0)
    k, n = 12, 60
    tokens = rng.dirichlet(np.full(k, 2.0))
    X, new = rng.dirichlet(k * tokens, n), rng.dirichlet(k * tokens, 400)
    y = surface(X, tokens)
    z = _standard(y + 0.05 * y.std() * rng.standard_normal(n))
    law = Law(X, z, make_folds(n, 5, 0), n_mixture=k)
    assert spearman(law.mean(new), surface(new, tokens)) > 0.9


@pytest.mark.parametrize(
    ("k", "n", "kinds"),
    [
        (23, 30, {"gp", "lightgbm-linear"}),
        (24, 30, {"gp", "law"}),
        (24, 96, {"gp", "law", "lightgbm-linear"}),
    ],
    ids=["few sources", "many sources", "many sources and rows"],
)
def test_auto_takes_a_law_where_there_are_many_sources(k: int, n: int, kinds: set[str]) -> None:
    rng = np.random.default_rng(4)
    X = rng.dirichlet(np.ones(k), n)
    noise = rng.standard_normal(n)  # nobody can tell which is best: nearly even weights
    assert set(Surrogate().fit(X, noise).shares_[0]) == kinds


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
