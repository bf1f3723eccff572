from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.fidelity.agreement import (
    Agreement,
    agreements,
    best_quarter,
    kendall_rows,
    spearman_differences,
    spearman_rows,
)

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SCORES = st.lists(st.integers(-3, 3), min_size=8, max_size=20)  # ties are common


def compare(p: FloatArray, r: FloatArray) -> Agreement:
    _, capabilities, macro = agreements({"b": p}, {"b": r}, {"c": ["b"]}, resamples=200)
    assert capabilities["c"] == macro
    return macro


@settings(deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_correlations_are_those_of_scipy(values: list[int], random: object) -> None:
    a = np.array(values, dtype=float)
    b = np.array(sorted(values, key=lambda _: random.random()), dtype=float)  # type: ignore[attr-defined]
    for ours, theirs in (
        (spearman_rows, scipy.stats.spearmanr),
        (kendall_rows, scipy.stats.kendalltau),
    ):
        found = ours(a[None], b[None])[0]
        if len(set(values)) == 1:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(theirs(a, b).statistic, abs=1e-12)


def test_a_proxy_that_ranks_alike_agrees_wherever_it_scores() -> None:
    r = np.linspace(0.2, 0.6, 24)
    found = compare(0.5 * r, r)
    assert found.spearman.value == found.top_quarter.value == found.kendall.value == 1.0
    assert found.recovery.value == pytest.approx(0.5)
    assert found.spearman.low == found.spearman.high == 1.0


def test_the_best_quarter_is_that_of_the_references() -> None:
    r = np.arange(24.0)
    p = r.copy()
    p[18:] = p[18:][::-1]  # the best six reversed
    found = compare(p + 100, r + 100)
    assert found.top_quarter.value == pytest.approx(-1.0)
    assert found.spearman.value is not None and found.spearman.value > 0.9
    assert best_quarter(r).sum() == 6


def test_recovery_of_negated_losses_is_below_one_when_the_proxy_loses_more() -> None:
    r = -np.linspace(1.0, 2.0, 12)
    assert compare(r * 2.0, r).recovery.value == pytest.approx(0.5)
    assert compare(r / 2.0, r).recovery.value == pytest.approx(2.0)


def test_recovery_across_signs_and_correlation_of_a_constant_are_undefined_not_zero() -> None:
    r = np.linspace(1.0, 2.0, 12)
    found = compare(-r, r)
    assert found.recovery.value is None and found.spearman.value == -1.0
    constant = compare(np.ones(12), r)
    assert constant.spearman.value is constant.top_quarter.value is constant.kendall.value is None
    assert constant.spearman.low is None


def test_a_capability_is_the_mean_of_its_benchmarks_and_macro_that_of_capabilities() -> None:
    rng = np.random.default_rng(0)
    r = {name: rng.random(16) + 1 for name in "abc"}
    p = {name: rng.random(16) + 1 for name in "abc"}
    _, capabilities, macro = agreements(p, r, {"x": ["a", "b"], "y": ["c"]}, resamples=50)
    both = scipy.stats.spearmanr(p["a"] + p["b"], r["a"] + r["b"]).statistic
    alone = scipy.stats.spearmanr(p["c"], r["c"]).statistic
    assert capabilities["x"].spearman.value == pytest.approx(both)
    assert macro.spearman.value == pytest.approx((both + alone) / 2)
    recovered = [float(p[name].mean() / r[name].mean()) for name in "ab"]
    assert capabilities["x"].recovery.value == pytest.approx(np.mean(recovered))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_intervals_hold_the_value_and_are_the_same_each_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = rng.random(30) + 1
    p = r + 0.3 * rng.random(30)
    found = compare(p, r)
    low, high = found.recovery.low, found.recovery.high
    assert low is not None and high is not None and found.recovery.value is not None
    assert low <= found.recovery.value <= high
    assert compare(p, r) == found


def test_fewer_than_three_models_in_the_best_quarter_have_no_rank_correlation() -> None:
    r = np.arange(8.0) + 1
    found = compare(r, r)
    assert found.spearman.value == 1.0 and found.top_quarter.value is None


def test_a_difference_is_that_of_the_same_resamples() -> None:
    rng = np.random.default_rng(3)
    r = {name: rng.random(24) for name in "ab"}
    first = {name: values + 0.5 * rng.random(24) for name, values in r.items()}
    second = {name: values + 0.01 * rng.random(24) for name, values in first.items()}
    capabilities = {"x": ["a"], "y": ["b"]}
    found, by_capability, macro = spearman_differences(
        first, second, r, capabilities, resamples=200
    )
    one, other = (
        agreements(proxies, r, capabilities, resamples=200)[2].spearman
        for proxies in (first, second)
    )
    assert one.value is not None and other.value is not None and macro.value is not None
    assert macro.value == pytest.approx(other.value - one.value)
    assert one.low is not None and one.high is not None
    assert macro.low is not None and macro.high is not None
    # Two proxies that err alike: of each there is doubt, of their difference hardly any.
    assert macro.high - macro.low < 0.3 * (one.high - one.low)
    assert found["a"] == by_capability["x"]
    same = spearman_differences(first, first, r, capabilities, resamples=50)[2]
    assert same.value == same.low == same.high == 0.0


def test_several_trainings_are_averaged_in_a_difference() -> None:
    rng = np.random.default_rng(4)
    one, other, first, second = ({"b": rng.random(16)} for _ in range(4))
    both = spearman_differences(first, second, [one, other], {"c": ["b"]}, resamples=50)[2]
    each = [
        spearman_differences(first, second, training, {"c": ["b"]}, resamples=50)[2].value
        for training in (one, other)
    ]
    assert both.value == pytest.approx(np.mean(each))  # type: ignore[arg-type]
