"""Log-likelihoods under mixtures of token probabilities, beside a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_demix.ensemble import ProbabilityMixture

COUNTS = [3, 1, 0, 40, 7, 0]
N_TOKENS = sum(COUNTS)


def rows_of(n_components: int, *, spread: float = 5.0, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = -rng.gamma(1.0, spread, (n_components, N_TOKENS))
    return list(rows.astype(np.float32))


def slowly(rows: list[np.ndarray], w: np.ndarray) -> np.ndarray:
    """Request by request, in twice the precision."""
    logs = np.stack(rows).astype(np.longdouble)
    with np.errstate(divide="ignore"):
        mixed = np.logaddexp.reduce(logs + np.log(w.astype(np.longdouble))[:, None], axis=0)
    ends = np.cumsum([0, *COUNTS])
    return np.array([float(mixed[a:b].sum()) for a, b in zip(ends, ends[1:], strict=False)])


@pytest.mark.parametrize("spread", [1.0, 20.0, 300.0])
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_it_agrees_with_a_slow_reference(n_components: int, spread: float) -> None:
    rows = rows_of(n_components, spread=spread)
    W = np.random.default_rng(1).dirichlet(np.full(n_components, 0.5), 9)
    found = ProbabilityMixture(rows, COUNTS).log_likelihoods(W)
    assert found.shape == (9, len(COUNTS))
    for w, values in zip(W, found, strict=True):
        assert values == pytest.approx(slowly(rows, w), rel=2e-6, abs=1e-5)


@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_a_vertex_is_the_component(spread: float) -> None:
    rows = rows_of(4, spread=spread)
    found = ProbabilityMixture(rows, COUNTS).log_likelihoods(np.eye(4))
    ends = np.cumsum([0, *COUNTS])
    for row, values in zip(rows, found, strict=True):
        own = [row[a:b].sum(dtype=np.float64) for a, b in zip(ends, ends[1:], strict=False)]
        assert values == pytest.approx(own, rel=3e-7, abs=1e-6)


def test_one_component_is_itself_exactly() -> None:
    (row,) = rows_of(1)
    found = ProbabilityMixture([row], COUNTS).log_likelihoods([[1.0]])[0]
    ends = np.cumsum([0, *COUNTS])
    own = [row[a:b].sum(dtype=np.float64) for a, b in zip(ends, ends[1:], strict=False)]
    assert found == pytest.approx(own, rel=1e-15)


@pytest.mark.parametrize("spread", [2.0, 100.0])
def test_gradients_are_those_of_differences(spread: float) -> None:
    rows = rows_of(4, spread=spread)
    mixture = ProbabilityMixture(rows, COUNTS)
    rng = np.random.default_rng(3)
    w, slopes = rng.dirichlet(np.ones(4)), rng.standard_normal((2, len(COUNTS)))
    found = mixture.pull_back(w, slopes)
    for i in range(4):
        step = 1e-5 * (np.eye(4)[i] - w)  # stays on the simplex
        change = slopes @ (slowly(rows, w + step) - slowly(rows, w - step)) / 2e-5
        along = found @ (np.eye(4)[i] - w)
        assert along == pytest.approx(change, rel=1e-4, abs=1e-4)


def test_a_needed_component_cannot_vanish() -> None:
    """Where one component alone knows a token, its weight costs a logarithm."""
    rows = [np.full(N_TOKENS, value, dtype=np.float32) for value in (-0.1, -400.0)]
    mixture = ProbabilityMixture(rows, COUNTS)
    few, none = mixture.log_likelihoods([[1e-6, 1 - 1e-6], [0.0, 1.0]])
    n = np.array(COUNTS)
    assert few == pytest.approx(n * (-0.1 + np.log(1e-6)), rel=1e-9)
    assert none == pytest.approx(n * -400.0, rel=1e-9)


def test_long_rows_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_demix.ensemble import mixing

    rows, W = rows_of(3, spread=100.0), np.full((7, 3), 1 / 3)
    whole = ProbabilityMixture(rows, COUNTS).log_likelihoods(W)
    monkeypatch.setattr(mixing, "_CHUNK_TOKENS", 5)
    monkeypatch.setattr(mixing, "_CHUNK_ELEMENTS", 100)
    assert ProbabilityMixture(rows, COUNTS).log_likelihoods(W) == pytest.approx(whole, rel=1e-12)


def test_memory_is_that_of_the_rows() -> None:
    rows = rows_of(3, spread=2.0)
    assert ProbabilityMixture(rows, COUNTS).nbytes == sum(row.nbytes for row in rows)


@pytest.mark.parametrize(
    "weights", [[[0.5, 0.5]], [0.2, 0.3, 0.5], [[0.5, 0.6, 0.5]], [[1.2, -0.2, 0.0]]]
)
def test_weights_off_the_simplex_are_refused(weights: list) -> None:
    with pytest.raises(ValueError, match="merge weights must be"):
        ProbabilityMixture(rows_of(3), COUNTS).log_likelihoods(weights)


def test_rows_that_do_not_fit_are_refused() -> None:
    rows = rows_of(2)
    with pytest.raises(ValueError, match=f"of {N_TOKENS} tokens"):
        ProbabilityMixture([rows[0], rows[1][:-1]], COUNTS)
    rows[1][4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        ProbabilityMixture(rows, COUNTS)


def test_no_request_at_all() -> None:
    mixture = ProbabilityMixture([np.empty(0, dtype=np.float32)], [0, 0])
    assert mixture.log_likelihoods([[1.0]]).tolist() == [[0.0, 0.0]]
    assert mixture.pull_back([1.0], [[1.0, 1.0]]).tolist() == [[0.0]]
