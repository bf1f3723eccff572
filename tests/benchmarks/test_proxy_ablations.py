"""The figures of the ablations, on scores whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _fidelity_models import nearest_weights
from _fidelity_scores import CORRECTIONS, ceiling_of, corrections, row_of, tokens_at
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_ablations import check, flat, ratio_at_equal_rho

CAPABILITIES = {"language": ["a", "b"], "sums": ["c"]}


def scores(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: -2.0 + 0.1 * rng.normal(size=n) for name in "abc"}


def simplex(n: int, k: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.8))
def test_reachable_mixtures_are_reached(seed: int, share: float) -> None:
    composition = (1 - share) * np.eye(4)
    composition[:, 0] += share
    weights = simplex(6, 4, seed)
    found, missed = nearest_weights(weights @ composition, composition)
    np.testing.assert_allclose(found, weights, atol=1e-5)
    assert missed < 1e-6


def test_the_distance_to_an_unreachable_mixture_is_told() -> None:
    composition = np.array([[1.0, 0.0], [0.75, 0.25]])  # never less than three quarters of one
    weights, missed = nearest_weights(np.array([[0.5, 0.5]]), composition)
    np.testing.assert_allclose(weights, [[0.0, 1.0]], atol=1e-6)
    assert missed == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("rho", "tokens"),
    [(0.5, 100.0 * 10**0.5), (0.8, 1000.0), (0.9, None), (0.1, None)],
)
def test_tokens_lie_between_budgets_and_are_not_extrapolated(
    rho: float, tokens: float | None
) -> None:
    found = tokens_at(rho, [100.0, 1000.0], [0.2, 0.8])
    assert found == (None if tokens is None else pytest.approx(tokens))


def test_perfect_proxies_agree_with_every_training() -> None:
    trained = scores(24)
    row = row_of(trained, [trained, trained], CAPABILITIES)
    assert row["rho"] == {"language": 1.0, "sums": 1.0, "macro": 1.0}
    assert row["rho_top_quarter"]["macro"] == 1.0
    assert row["recovery"]["macro"] == 1.0


def test_a_row_is_the_mean_over_training_seeds() -> None:
    proxies, first, second = scores(24), scores(24, 1), scores(24, 2)
    both = row_of(proxies, [first, second], CAPABILITIES)["rho"]["macro"]
    each = [row_of(proxies, [one], CAPABILITIES)["rho"]["macro"] for one in (first, second)]
    assert both == pytest.approx(np.mean(each), abs=2e-4)


def test_the_ceiling_needs_two_seeds() -> None:
    assert ceiling_of([scores(12)], CAPABILITIES) is None
    found = ceiling_of([scores(12), scores(12)], CAPABILITIES)
    assert found is not None
    assert found["rho_macro"] == 1.0


def test_a_control_variate_learns_what_follows_from_the_mixture() -> None:
    features = simplex(40, 3, 5)
    proxies = scores(40)
    trained = {name: score + features @ [0.0, 0.4, -0.4] for name, score in proxies.items()}
    rows = {
        row["correction"]: row
        for row in corrections(proxies, features, [trained], CAPABILITIES, n_known=16, draws=5)
    }
    assert set(rows) == set(CORRECTIONS)
    assert rows["none"]["gain_top_quarter"] == 0.0
    assert rows["control variate"]["rho_macro"] > 0.98 > rows["none"]["rho_macro"]
    assert rows["references alone"]["rho_macro"] < rows["control variate"]["rho_macro"]


def row(method: str, per_model: int, total: int, rho: float) -> dict[str, Any]:
    return {
        "method": method,
        "tokens_per_model": per_model,
        "total_tokens": total,
        "rho": {"macro": rho},
        "rho_top_quarter": {"macro": 0.7},
        "recovery": {"macro": 0.9},
        "ci95": [0.8, 0.95],
        "ci95_top_quarter": [None, None],
    }


def test_the_token_ratio_is_a_bound_where_training_falls_short() -> None:
    rows = [row("merged", 10, 50, 0.9), row("trained", 1, 100, 0.5), row("trained", 4, 400, 0.8)]
    assert ratio_at_equal_rho(rows, 10) == (None, 8.0)
    rows.append(row("trained", 8, 800, 0.9))
    assert ratio_at_equal_rho(rows, 10) == (16.0, None)


def test_a_missed_target_is_named_as_missed() -> None:
    table = [row("merged", 10, 50, 0.89)]
    result = {"table2": table, "token_ratio_at_equal_rho": None}
    met = {target["target"]: target["met"] for target in check(result, 10)}
    assert met == {
        "macro Spearman": False,
        "best quarter": True,
        "recovery": True,
        "times fewer training tokens": False,
    }


def test_a_line_of_a_table_leaves_out_what_is_undefined() -> None:
    line = flat({**row("merged", 10, 50, 0.9), "rho_top_quarter": {"macro": None}})
    assert line["ci95"] == "0.80 to 0.95"
    assert "quarter" not in line
