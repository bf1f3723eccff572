from __future__ import annotations

import _peers as peers
import numpy as np
import pytest
from _surfaces import ANALYTIC, Surface

CALLS = (7, 10)


@pytest.fixture(autouse=True)
def _small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "DEMIX_DRAWN", 4000)
    monkeypatch.setattr(peers, "DEMIX_POOL", 2000)


@pytest.fixture(scope="module")
def capped() -> Surface:
    return ANALYTIC["capped"](0)


@pytest.mark.parametrize("method", peers.METHODS)
def test_what_is_recommended_lies_within_the_constraints(method: str, capped: Surface) -> None:
    if method == "cma_es":
        pytest.importorskip("cmaes")
    run = peers.Run(capped, seed=0)
    picked = peers.METHODS[method](run, CALLS)
    assert list(picked) == list(CALLS)
    assert len(run.tried) == CALLS[-1]
    for ways in picked.values():
        assert capped.space.contains(np.stack(list(ways.values()))).all()
    inside = capped.space.contains(np.stack(run.tried))
    if method == "demix_published":
        assert not inside.all()  # its code enforces caps once, in order
    else:
        assert inside.all()


def test_published_draws_break_their_own_cap() -> None:
    prior = np.array([1278.0, 284.0, 69.0, 100.0, 51.0, 141.0, 633.0])
    prior /= prior.sum()
    caps = np.minimum(4.0 * prior, 1.0)
    W = peers.demix_pool(prior, caps, 20_000, np.random.default_rng(0))
    broken = float(np.mean((W > caps).any(axis=1)))
    assert 0.25 < broken < 0.31  # 28 % in the released code
    np.testing.assert_allclose(W.sum(axis=1), 1.0)


def test_published_draws_are_distinct() -> None:
    W = peers.demix_pool(np.full(3, 1 / 3), np.ones(3), 5000, np.random.default_rng(0))
    assert len(np.unique(W, axis=0)) == len(W) < 5000


@pytest.mark.parametrize(
    ("budget", "sizes"), [(28, (16, 8, 4)), (112, (64, 32, 16)), (224, (128, 64, 32))]
)
def test_iterations_are_those_of_the_paper(budget: int, sizes: tuple[int, int, int]) -> None:
    assert peers.iterations(budget) == sizes


@pytest.mark.parametrize("method", ["random", "tpe", pytest.param("ours", marks=pytest.mark.slow)])
def test_a_smaller_budget_sees_the_first_trials_only(method: str) -> None:
    surface = ANALYTIC["sparse"](0)
    short = peers.METHODS[method](peers.Run(surface, seed=1), (10,))
    long = peers.METHODS[method](peers.Run(surface, seed=1), (10, 20))
    for how, w in short[10].items():
        np.testing.assert_allclose(long[10][how], w, atol=1e-9)


def test_all_methods_meet_the_same_noise() -> None:
    surface = ANALYTIC["binomial"](0)
    w = surface.space.prior
    first, second = peers.Run(surface, seed=2), peers.Run(surface, seed=2)
    first.measure(surface.optimum)
    second.measure(surface.space.center)
    np.testing.assert_array_equal(first.measure(w), second.measure(w))


def test_the_exact_solve_finds_the_best_of_its_own_law() -> None:
    surface = ANALYTIC["capped"](0)
    slopes = np.random.default_rng(0).normal(-1.0, 1.0, (6, 10))
    best = peers._convex_solver(surface, slopes)(0.0)
    pool = surface.space.sample(5000, np.random.default_rng(1))

    def loss(W: np.ndarray) -> np.ndarray:
        return np.exp(np.atleast_2d(W) @ slopes.T) @ surface.weights

    assert surface.space.contains(best, atol=1e-6)
    assert loss(best)[0] < loss(pool).min()


def test_the_best_posterior_mean_is_near_the_best_of_a_smooth_function() -> None:
    rng = np.random.default_rng(0)
    U = rng.random((40, 2))
    target = np.array([0.3, 0.7])
    values = -((U - target) ** 2).sum(axis=1) + 0.01 * rng.normal(size=40)
    best = peers.best_posterior_mean(U, values, rng)
    assert np.abs(best - target).max() < 0.1
