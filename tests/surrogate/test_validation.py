from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from optuna_demix.errors import DemixError
from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._validation import average_ranks, spearman, top_quarter
from tests.surrogate.surfaces import mixtures, scores

values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(values)
def test_ranks_are_scipys(numbers: list[float]) -> None:
    expected = stats.rankdata(numbers) - 1.0
    np.testing.assert_allclose(average_ranks(np.array(numbers)), expected)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    result = spearman(a, b)
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        assert np.isnan(result)
    else:
        assert result == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


def test_spearman_of_two_rows_is_undefined() -> None:
    assert np.isnan(spearman(np.arange(2.0), np.arange(2.0)))


def test_top_quarter() -> None:
    np.testing.assert_array_equal(top_quarter(np.arange(8.0)), [False] * 6 + [True] * 2)
    assert top_quarter(np.empty(0)).shape == (0,)


def test_validation_tells_a_law_from_noise() -> None:
    rng = np.random.default_rng(0)
    w = mixtures(80, 4, rng)
    Y = np.c_[scores(w), rng.standard_normal(80)]
    result = Surrogate().fit(w, Y).validate()
    assert (result.spearman[:3] > 0.9).all()
    assert (result.spearman_top_quarter[:3] > 0.3).all()
    assert abs(result.spearman[3]) < 0.35
    assert (result.coverage[3] > 0.75) & (result.coverage[3] <= 1.0)


def test_validation_counts_known_scores() -> None:
    rng = np.random.default_rng(1)
    w = mixtures(30, 4, rng)
    Y = scores(w)
    Y[:12, 1] = np.nan
    Y[:, 2] = np.nan
    surrogate = Surrogate().fit(w, Y)
    result = surrogate.validate(n_splits=3)
    np.testing.assert_array_equal(result.n, [30, 18, 0])
    assert result.kinds == surrogate.kinds_
    assert np.isfinite(result.spearman[:2]).all()
    assert np.isnan([result.spearman[2], result.spearman_top_quarter[2], result.coverage[2]]).all()


def test_validation_of_a_constant_prediction_is_undefined_or_worthless() -> None:
    w = mixtures(30, 4, np.random.default_rng(2))
    result = Surrogate("lightgbm").fit(w, scores(w)).validate()
    # Each split predicts its own mean: what is left is no better than chance.
    assert not (result.spearman > 0.3).any()


def test_validation_changes_nothing() -> None:
    w = mixtures(30, 4, np.random.default_rng(3))
    surrogate = Surrogate().fit(w, scores(w))
    before = surrogate.predict(w)
    surrogate.validate(n_splits=2)
    np.testing.assert_array_equal(surrogate.predict(w), before)


def test_one_split_is_refused() -> None:
    w = mixtures(10, 3, np.random.default_rng(4))
    with pytest.raises(DemixError, match="at least 2"):
        Surrogate().fit(w, w[:, 0]).validate(n_splits=1)
