from __future__ import annotations

import functools

import numpy as np
import pytest
from _laws import FittedLaw
from _surfaces import ANALYTIC, Surface

_SLOW = pytest.param("laws64", marks=pytest.mark.slow)  # laws39 with more sources


@functools.cache
def instance(name: str, seed: int) -> Surface:
    """An instance whose optimum is searched once for all tests."""
    return ANALYTIC[name](seed)


@pytest.fixture(scope="module", params=[_SLOW if name == "laws64" else name for name in ANALYTIC])
def surface(request: pytest.FixtureRequest) -> Surface:
    return instance(request.param, 0)


def test_regret_is_0_at_the_optimum_and_1_at_the_prior(surface: Surface) -> None:
    regrets = surface.regret(np.stack([surface.optimum, surface.space.prior]))
    np.testing.assert_allclose(regrets, [0.0, 1.0], atol=1e-12)
    assert surface.space.contains(surface.optimum)


def test_no_mixture_beats_the_optimum(surface: Surface) -> None:
    rng = np.random.default_rng(3)
    random = surface.space.sample(5000, rng)
    near = surface.space.perturb(np.tile(surface.optimum, (5000, 1)), 0.02, rng)
    assert surface.regret(random).min() > 0.0
    assert surface.regret(near).min() > -1e-6


def test_noise_belongs_to_seed_and_trial(surface: Surface) -> None:
    w = surface.space.prior
    first = surface.observe(w, seed=4, trial=7)
    np.testing.assert_array_equal(first, surface.observe(w, seed=4, trial=7))
    assert np.any(first != surface.observe(w, seed=4, trial=8))
    assert np.any(first != surface.observe(w, seed=5, trial=7))


def test_observed_scores_are_right_on_average(surface: Surface) -> None:
    w = surface.optimum
    seen = np.array([surface.observe(w, seed=0, trial=trial) for trial in range(200)])
    error = seen.std(axis=0) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(axis=0) - surface.law(w[None])[0]) < 5.0 * error)


def test_another_seed_is_another_instance(surface: Surface) -> None:
    again, other = ANALYTIC[surface.name](0), instance(surface.name, 1)
    W = surface.space.sample(100, np.random.default_rng(0))
    assert again.space == surface.space
    np.testing.assert_array_equal(again.law(W), surface.law(W))  # all else follows from these
    assert np.abs(other.optimum - surface.optimum).max() > 0.02


@pytest.mark.parametrize("seed", range(3))
def test_optima_are_what_their_names_say(seed: int) -> None:
    assert instance("interior", seed).optimum.min() > 0.01
    assert (instance("sparse", seed).optimum < 1e-3).sum() >= 6
    capped = instance("capped", seed)
    shares = capped.space.data_shares(capped.optimum)
    assert np.isclose(shares, capped.space.caps, atol=1e-4).any()


def test_accuracies_are_counts_of_500_questions() -> None:
    surface = ANALYTIC["binomial"](0)
    right = 500 * surface.observe(surface.space.prior, seed=0, trial=0)
    np.testing.assert_allclose(right, np.round(right), atol=1e-9)


def test_the_conflict_is_one() -> None:
    surface = ANALYTIC["conflict"](0)
    scores = surface.law(surface.space.sample(2000, np.random.default_rng(0)))
    assert np.corrcoef(scores.T)[0, 1:3].max() < 0.0  # three capabilities in turn


def test_a_fitted_law_predicts_what_it_was_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.ones(4), size=200)
    loss = 2.0 + 1.5 * (1.0 + X @ [9.0, 2.0, 0.1, 0.1]) ** -0.6 + np.exp(X @ [-2.0, 0, 0.5, 0])
    law = FittedLaw.fit(X[:150], loss[:150, None])
    error = law(X[150:])[:, 0] - loss[150:]
    assert np.sqrt(np.mean(error**2)) < 0.02 * loss.std()
