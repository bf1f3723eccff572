"""A surrogate that starts from a cheap prediction of the scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.surrogate import KINDS, Surrogate
from optuna_demix.surrogate._kinds import Task
from optuna_demix.surrogate._prior_mean import FromPriorMean, Line
from optuna_demix.surrogate._regressor import make_folds
from optuna_demix.surrogate._validation import spearman
from tests.surrogate.surfaces import FloatArray, mixtures, quadratic, scaling, scores

NEW = mixtures(300, 4, np.random.default_rng(100))


def error(
    n: int, prior_mean: Callable[[FloatArray], FloatArray] | None, kind: str = "auto"
) -> float:
    """Error of predictions from n rows, in units of the spread of the scores."""
    w = mixtures(n, 4, np.random.default_rng(n))
    found = Surrogate(kind, prior_mean=prior_mean).fit(w, scaling(w)).predict(NEW)
    return float(np.sqrt(np.mean((found - scaling(NEW)) ** 2)) / scaling(NEW).std())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [4, 8, 12])
def test_an_exact_prior_mean_is_believed_at_once(kind: str, n: int) -> None:
    assert error(n, lambda w: 70.0 + 0.01 * scaling(w), kind) < 0.01
    assert error(n, None, kind) > 0.05


def test_a_biased_one_is_corrected() -> None:
    def biased(w: FloatArray) -> FloatArray:
        return scaling(w) + 0.4 * np.cos(4.0 * w[:, 1])

    off = Surrogate(prior_mean=biased).fit(NEW[:0], scaling(NEW[:0])).predict(NEW)
    as_it_is = np.sqrt(np.mean((off - scaling(NEW) - np.mean(off - scaling(NEW))) ** 2))
    assert error(12, biased) < 0.7 * min(error(12, None), as_it_is / scaling(NEW).std())


@pytest.mark.parametrize("kind", KINDS)
def test_a_misleading_one_changes_nothing(kind: str) -> None:
    w = mixtures(12, 4, np.random.default_rng(0))
    plain = Surrogate(kind).fit(w, scores(w))
    misled = Surrogate(kind, prior_mean=lambda w: -scores(w)).fit(w, scores(w))
    expected = plain.predict(NEW, return_std=True)
    np.testing.assert_array_equal(misled.predict(NEW, return_std=True), expected)
    np.testing.assert_array_equal(plain.noise_, misled.noise_)
    assert misled.kinds_ == plain.kinds_


@pytest.mark.parametrize("seed", range(3))
def test_a_useless_one_costs_next_to_nothing(seed: int) -> None:
    wave = 6.0 * np.random.default_rng(seed).standard_normal(4)
    for n in (8, 16, 40):
        assert error(n, lambda w: np.cos(w @ wave)) < 1.1 * error(n, None)


def test_below_four_rows_it_is_taken_as_it_is() -> None:
    w = mixtures(4, 4, np.random.default_rng(1))
    for n in range(4):
        surrogate = Surrogate(prior_mean=quadratic).fit(w[:n], quadratic(w[:n]) + 0.1)
        mean, std = surrogate.predict(NEW, return_std=True)
        np.testing.assert_allclose(mean, quadratic(NEW))
        assert surrogate.kinds_ == ("prior",)
        if n:
            np.testing.assert_allclose(std, 0.1)
    surrogate = Surrogate(prior_mean=quadratic).fit(w, quadratic(w) + 0.1)
    np.testing.assert_allclose(surrogate.predict(NEW), quadratic(NEW) + 0.1, atol=0.02)


def test_nan_in_a_row_of_the_fit_leaves_it_out_for_that_benchmark_alone() -> None:
    w = mixtures(16, 4, np.random.default_rng(2))

    def partial(X: FloatArray) -> FloatArray:
        guess = scores(X)
        guess[:, 0] = np.nan
        guess[np.isclose(X[:, 0], w[5, 0]), 2] = np.inf
        return guess

    plain = Surrogate().fit(w, scores(w))
    found = Surrogate(prior_mean=partial).fit(w, scores(w))
    assert ["prior" in kinds for kinds in found.kinds_] == [False, True, False]
    np.testing.assert_array_equal(found.predict(NEW)[:, [0, 2]], plain.predict(NEW)[:, [0, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_a_new_row_is_predicted_without(kind: str) -> None:
    w = mixtures(40, 4, np.random.default_rng(3))
    hidden = np.arange(len(NEW)) % 2 == 0

    def partial(X: FloatArray) -> FloatArray:
        return np.where(hidden, np.nan, quadratic(X)) if len(X) == len(NEW) else quadratic(X)

    surrogate = Surrogate(kind, prior_mean=partial).fit(w, quadratic(w))
    mean, std = surrogate.predict(NEW, return_std=True)
    np.testing.assert_allclose(surrogate.predict(NEW), mean, atol=1e-12)
    whole = Surrogate(kind, prior_mean=quadratic).fit(w, quadratic(w)).predict(NEW)
    np.testing.assert_allclose(mean[~hidden], whole[~hidden], atol=1e-12)
    assert np.isfinite(mean).all() and np.isfinite(std).all()
    if kind != "lightgbm":  # which predicts a constant
        assert spearman(mean[hidden], quadratic(NEW)[hidden]) > 0.6


def test_held_out_predictions_have_not_seen_their_scores() -> None:
    rng = np.random.default_rng(4)
    leaks = []
    for _ in range(6):
        w, z, p = mixtures(16, 4, rng), rng.standard_normal(16), rng.standard_normal(16)
        z = (z - z.mean()) / z.std()
        task = Task(w, z, make_folds(16, 5, 0), 4, 0, 1, np.zeros(16))
        leaks.append(spearman(FromPriorMean("auto", task, p).held_out.mean, z))
    assert np.mean(leaks) < 0.2


def test_the_slope_is_not_negative_and_with_few_rows_near_one() -> None:
    rng = np.random.default_rng(5)
    u = rng.standard_normal(400)
    assert Line(u, -u).slope == 0.0
    assert Line(u, 0.3 * u).slope == pytest.approx(0.3, abs=0.01)
    assert Line(u[:1], u[:1]).slope == 1.0


@pytest.mark.parametrize("size", [0.2, 2.0])
def test_intervals_stay_honest(size: float) -> None:
    wave = np.array([5.0, -3.0, 2.0, 4.0])
    hits = []
    for seed in range(4):
        rng = np.random.default_rng([seed, 6])
        w = mixtures(20, 4, rng)
        noise = 0.1 * quadratic(NEW).std()
        surrogate = Surrogate(prior_mean=lambda w: quadratic(w) + 0.1 * size * np.cos(w @ wave))
        surrogate.fit(w, quadratic(w) + noise * rng.standard_normal(20))
        mean, std = surrogate.predict(NEW, return_std=True)
        new = quadratic(NEW) + noise * rng.standard_normal(len(NEW))
        hits.append(np.abs(new - mean) <= 1.645 * np.hypot(std, surrogate.noise_))
    assert 0.8 < np.mean(hits) < 0.995


@pytest.mark.parametrize("returned", [np.zeros(3), np.zeros((16, 2)), "much", None])
def test_what_is_not_shaped_like_the_scores_is_refused(returned: object) -> None:
    w = mixtures(16, 4, np.random.default_rng(7))
    surrogate = Surrogate(prior_mean=lambda X: returned)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match=r"prior_mean must return an array of shape \(16, 3\)"):
        surrogate.fit(w, scores(w))


def test_it_is_a_parameter_like_the_others() -> None:
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    surrogate = base.clone(Surrogate(prior_mean=quadratic))
    assert surrogate.get_params()["prior_mean"] is quadratic
    w = mixtures(20, 4, np.random.default_rng(8))
    found = surrogate.fit(w, quadratic(w)).validate()
    assert found.spearman[0] > 0.99
