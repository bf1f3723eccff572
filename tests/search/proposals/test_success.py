"""The classifier of trials that fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix import MixtureSpace
from optuna_demix.search.proposals import success as module
from optuna_demix.search.proposals.success import Success, probability

SPACE = MixtureSpace(["web", "code", "math", "docs"])


def mixtures(n: int, seed: int = 0) -> np.ndarray:
    return SPACE.sample(n, np.random.default_rng(seed))


def fitted(X: np.ndarray, fails: np.ndarray) -> Success:
    return Success(X[~fails], X[fails], n_mixture=4)


def probability_at(success: Success, X: np.ndarray) -> np.ndarray:
    return probability(*success.log_odds(X))


@pytest.mark.parametrize("n", [40, 200, 1000])
def test_a_border_is_learned(n: int) -> None:
    X, new = mixtures(n), mixtures(2000, seed=1)
    likely = probability_at(fitted(X, X[:, 0] > 0.4), new)
    right = (likely > 0.5) == (new[:, 0] <= 0.4)
    assert right.mean() > (0.93 if n == 40 else 0.97)


@pytest.mark.parametrize("n", [40, 200, 2000])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_failures_that_strike_anywhere_leave_it_flat(n: int, share: float) -> None:
    X, new = mixtures(n), mixtures(500, seed=1)
    likely = probability_at(fitted(X, np.random.default_rng(2).random(n) < share), new)
    assert likely.mean() == pytest.approx(1.0 - share, abs=0.12)
    assert likely.std() < 0.12


def test_without_failures_success_is_certain() -> None:
    success = Success(mixtures(8), np.empty((0, 4)), n_mixture=4)
    log_odds, std = success.log_odds(mixtures(3))
    assert np.all(log_odds == np.inf) and np.all(std == 0.0)
    assert np.all(probability(log_odds, std) == 1.0)


def test_one_failure_is_kept_away_from_and_no_more() -> None:
    good = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1], [0.4, 0.1, 0.1, 0.4]])
    bad = np.array([[1.0, 0.0, 0.0, 0.0]])
    at_it, beside, at_a_good_one = probability_at(
        Success(good, bad, n_mixture=4), np.array([bad[0], [0.9, 0.1, 0.0, 0.0], good[0]])
    )
    assert at_it < 0.5 and at_it <= beside < at_a_good_one
    assert at_a_good_one > 0.7


def test_failures_alone_say_little_of_what_lies_far_away() -> None:
    bad = np.array([[1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0]])
    success = Success(np.empty((0, 4)), bad, n_mixture=4)
    near, far = probability_at(success, np.array([[0.95, 0.05, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]))
    assert near < far
    assert len(success.log_odds(np.empty((0, 4)))[0]) == 0


def test_other_parameters_count_as_they_are() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([mixtures(60), rng.random(60)])  # a learning rate in the last column
    success = fitted(X, X[:, 4] > 0.7)
    low, high = X.copy(), X.copy()
    low[:, 4], high[:, 4] = 0.4, 0.95
    assert probability_at(success, low).min() > 0.7
    assert probability_at(success, high).max() < 0.3


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 30),
    st.floats(0.05, 2.0),
    st.sampled_from([1.0, 64.0, 512.0]),
)
def test_the_mode_is_a_mode(seed: int, n: int, length: float, signal: float) -> None:
    X = mixtures(n, seed)
    y = np.where(np.random.default_rng(seed).random(n) < 0.5, 1.0, -1.0)
    kernel = 4.0 + signal * module._matern(module._distance(X, X) / length)
    mode = module._find_mode(kernel, y)
    # At the mode f = K slope(f): the gradients of prior and likelihood cancel.
    f = kernel @ mode.slope
    np.testing.assert_allclose(mode.slope, 0.5 * (y + 1.0) - module._logistic(f), atol=5e-3)


def test_probabilities_are_those_of_normal_log_odds() -> None:
    draws = np.random.default_rng(0).standard_normal(200_000)
    for mean, std in ((0.0, 3.0), (2.0, 1.0), (-1.0, 4.0)):
        expected = np.mean(1.0 / (1.0 + np.exp(-(mean + std * draws))))
        assert probability(np.array([mean]), std)[0] == pytest.approx(expected, abs=0.02)
