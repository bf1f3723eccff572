"""The page's own evaluation of a surrogate against the surrogate itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_demix.report.page._encoding import to_json
from optuna_demix.report.page.build import _asset
from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.surrogate import Surrogate, _law
from optuna_demix.surrogate._description import size_of

pytestmark = pytest.mark.xdist_group("report")

RNG = np.random.default_rng(0)
W = RNG.dirichlet(np.ones(4), size=60)
X = np.column_stack([W, RNG.random(60)])  # with another parameter
Y = np.column_stack([np.sqrt(W[:, 0]) + 0.3 * X[:, 4] ** 2, np.sin(3 * W[:, 1]) - W[:, 2]])
Y += 0.01 * RNG.standard_normal(Y.shape)
NEW = np.column_stack([RNG.dirichlet(np.ones(4), size=7), RNG.random(7)])
NEAR = np.column_stack([RNG.dirichlet(np.ones(4), size=300), RNG.random(300)])


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Any:
    page = chromium.new_page()
    script = _asset("surrogate.js")
    page.set_content(f"<script>{script}\nwindow.predictorOf = predictor;</script>")
    return page


def in_browser(
    tab: Any,
    surrogate: Surrogate,
    rows: np.ndarray,
    near: np.ndarray = NEAR,
    **limits: float,
) -> Any:
    """Means and standard deviations (n, b) as the page computes them, and the description."""
    described = surrogate.describe(near, **limits)
    b = len(described.benchmarks)
    model = {
        "surrogate": described.benchmarks,
        "signs": [1.0] * b,
        "mixing": np.eye(b).tolist(),
        "composite": {"weights": [1.0 / b] * b, "reference": None},
    }
    said = tab.evaluate(
        """([text, rows]) => {
            const stored = JSON.parse(text);
            const predict = predictorOf(withArrays(stored.data, readArrays(stored.arrays)));
            return rows.map((row) => predict(row, 1));
        }""",
        [to_json(model), rows.tolist()],
    )
    mean = np.array([one["mean"] for one in said])
    std = np.array([one["std"] for one in said])
    return mean, std, described


@pytest.mark.parametrize("kind", ["auto", "gp", "lightgbm-linear", "lightgbm"])
def test_it_predicts_as_the_surrogate_does(tab: Any, kind: str) -> None:
    scores = np.column_stack([Y, np.full(60, 0.5)])  # and a benchmark that says nothing
    scores[:5, 1] = np.nan
    surrogate = Surrogate(kind, n_mixture=4).fit(X, scores)
    mean, std = surrogate.predict(NEW, return_std=True)
    seen_mean, seen_std, described = in_browser(tab, surrogate, NEW)
    np.testing.assert_allclose(seen_mean, mean, atol=1e-6)
    np.testing.assert_allclose(seen_std, std, atol=1e-6)
    assert not described.mean_error.any() and not described.std_error.any()


@pytest.mark.parametrize(("n", "others"), [(20, 0), (40, 1), (100, 1)], ids=str)
def test_it_predicts_as_the_law_of_many_sources_does(
    tab: Any, monkeypatch: pytest.MonkeyPatch, n: int, others: int
) -> None:
    monkeypatch.setattr(_law, "_WIDENED", -0.4)  # most means are drawn into what is left
    rng = np.random.default_rng(1)
    rows, new, near = (
        np.column_stack([rng.dirichlet(np.ones(24), m), rng.random((m, others))])
        for m in (n, 7, 60)
    )
    scores = rows[:, 0] + 0.1 * rng.standard_normal(n)  # law and process are as good
    surrogate = Surrogate(n_mixture=24, unit=rng.dirichlet(np.ones(24))).fit(rows, scores)
    assert "law" in surrogate.kinds_[0]
    mean, std = surrogate.predict(new, return_std=True)
    seen_mean, seen_std, described = in_browser(tab, surrogate, new, near=near)
    np.testing.assert_allclose(seen_mean[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(seen_std[:, 0], std, atol=1e-6)
    assert not described.mean_error.any() and not described.std_error.any()


def rough(rows: np.ndarray) -> np.ndarray:
    """A prior mean near the first benchmark, and none of the second."""
    return np.column_stack([np.sqrt(rows[:, 0]) ** 1.1, np.full(len(rows), np.nan)])


@pytest.mark.parametrize("kind", ["auto", "gp", "lightgbm-linear"])
def test_a_prior_mean_is_approximated_as_well_as_it_says(tab: Any, kind: str) -> None:
    surrogate = Surrogate(kind, n_mixture=4, prior_mean=rough).fit(X, Y)
    assert "prior" in surrogate.shares_[0]
    mean, _ = surrogate.predict(NEAR[-100:], return_std=True)
    seen, _, described = in_browser(tab, surrogate, NEAR[-100:])
    off = np.quantile(np.abs(seen - mean), 0.95, axis=0)
    assert 0.0 < off[0] <= 1.001 * described.mean_error[0] < 0.02 * np.std(Y[:, 0])
    assert off[1] < 1e-9 and described.mean_error[1] == 0.0


def test_a_prior_mean_of_few_rows_is_given_as_it_is(tab: Any) -> None:
    surrogate = Surrogate(n_mixture=4, prior_mean=rough).fit(X[:3], Y[:3])
    mean, std = surrogate.predict(NEW, return_std=True)
    seen_mean, seen_std, described = in_browser(tab, surrogate, NEW)
    np.testing.assert_allclose(seen_std, std, rtol=1e-9)
    assert np.abs(seen_mean - mean).max() < 5 * described.mean_error[0] + 1e-9


@pytest.mark.parametrize("exact_mean", [True, False])
def test_what_is_too_large_is_approximated(tab: Any, exact_mean: bool) -> None:
    surrogate = Surrogate(n_mixture=4).fit(X, Y[:, 0])
    rows = NEAR[-100:]  # those that the errors are measured on
    mean, std = (array[:, None] for array in surrogate.predict(rows, return_std=True))
    whole = surrogate.describe(NEAR, most_bytes=1e9).benchmarks[0]["regressor"]
    limit = size_of(whole) - 1.0 if exact_mean else 100.0
    seen_mean, seen_std, described = in_browser(tab, surrogate, rows, most_bytes=limit)
    assert (np.abs(seen_mean - mean).max() < 1e-6) == exact_mean
    off = np.quantile(np.abs(seen_mean - mean), 0.95)
    assert off <= 1.001 * described.mean_error[0] + 1e-9
    relative = np.quantile(np.abs(seen_std / std - 1.0), 0.95)
    assert 0.0 < relative <= 1.001 * described.std_error[0]


def test_the_composite_is_that_of_the_search(tab: Any) -> None:
    reference = np.round(RNG.random((50, 2)), 2)  # with ties
    scores = RNG.uniform(-0.2, 1.2, (20, 2))
    ranked = Composite("rank", reference)
    described = ranked.describe()
    model = {"weights": [0.5, 0.5], "reference": list(described["reference"].T)}
    seen = tab.evaluate(
        """([text, scores]) => {
            const stored = JSON.parse(text);
            const merit = composite(withArrays(stored.data, readArrays(stored.arrays)));
            return scores.map((y) => merit(y));
        }""",
        [to_json(model), scores.tolist()],
    )
    np.testing.assert_allclose(seen, ranked.told(scores), atol=1e-9)
