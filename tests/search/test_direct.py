"""The best mixture of a cheap function, under constraints."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.search.direct import optimize

NAMES = ["web", "code", "math", "docs"]
TARGET = np.array([0.1, 0.6, 0.3, 0.0])


def values(W: np.ndarray) -> np.ndarray:
    return -((W - TARGET) ** 2).sum(axis=1, keepdims=True)


def gradients(w: np.ndarray) -> np.ndarray:
    return -2 * (w - TARGET)[None]


@pytest.mark.parametrize("slopes", [None, gradients])
def test_it_finds_the_optimum(slopes) -> None:
    found = optimize(MixtureSpace(NAMES), values, gradients=slopes)
    assert found.weights == pytest.approx(TARGET, abs=2e-3)


@pytest.mark.parametrize("slopes", [None, gradients])
def test_it_keeps_every_constraint(slopes) -> None:
    space = MixtureSpace(
        NAMES,
        upper={"code": 0.4},
        min_weight=0.15,
        groups=[{"name": "dry", "members": ["math", "docs"], "upper": 0.35}],
    )
    found = optimize(space, values, gradients=slopes)
    assert space.contains(found.weights)
    # Bounds and group leave web at least 0.25; the best corner has all of math and no docs.
    assert found.weights == pytest.approx([0.25, 0.4, 0.35, 0.0], abs=5e-3)


def test_a_gradient_finds_what_moves_alone_do_not() -> None:
    """Many components, a far optimum: the climb gets there, and says so by its merit."""
    names = [f"c{i}" for i in range(30)]
    target = np.zeros(30)
    target[[3, 17]] = 0.75, 0.25
    space = MixtureSpace(names)

    def far(W: np.ndarray) -> np.ndarray:
        return -((W - target) ** 2).sum(axis=1, keepdims=True)

    with_slopes = optimize(space, far, gradients=lambda w: -2 * (w - target)[None])
    without = optimize(space, far)
    assert with_slopes.weights == pytest.approx(target, abs=1e-4)
    assert far(with_slopes.weights[None])[0] > far(without.weights[None])[0]


def test_ranks_do_not_depend_on_units() -> None:
    def two(W: np.ndarray, scale: float) -> np.ndarray:
        return np.stack([-((W[:, 0] - 0.8) ** 2), -scale * (W[:, 0] - 0.3) ** 2], axis=1)

    space = MixtureSpace(NAMES)
    plain, scaled = (
        optimize(space, lambda W, s=scale: two(W, s), composite="rank").weights[0]
        for scale in (1.0, 1000.0)
    )
    assert scaled == pytest.approx(plain, abs=1e-6)
    by_mean = optimize(space, lambda W: two(W, 1000.0), composite="mean").weights[0]
    assert by_mean == pytest.approx(0.3, abs=5e-3)


def test_the_prior_pulls() -> None:
    space = MixtureSpace(NAMES, prior=[0.25] * 4)
    free = optimize(space, values, gradients=gradients).weights
    pulled = optimize(space, values, gradients=gradients, kl=0.2).weights
    assert np.abs(pulled - 0.25).sum() < np.abs(free - 0.25).sum() - 0.1


def test_what_is_not_a_number_is_never_best() -> None:
    def broken(W: np.ndarray) -> np.ndarray:
        return np.where(W[:, :1] > 0.3, np.nan, W[:, :1])

    found = optimize(MixtureSpace(NAMES), broken, composite="mean")
    assert found.weights[0] == pytest.approx(0.3, abs=1e-3)


def test_a_seed_repeats_it() -> None:
    first, again = (optimize(MixtureSpace(NAMES), values, seed=3).weights for _ in range(2))
    assert first.tolist() == again.tolist()
