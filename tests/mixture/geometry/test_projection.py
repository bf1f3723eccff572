from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from optuna_demix.errors import DemixError
from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import assert_allowed, paper_space, spaces


@settings(max_examples=30)
@given(spaces(), st.sampled_from([0.01, 0.3, 5.0, 1e5]), st.integers(0, 2**32 - 1))
def test_projection_is_inside_idempotent_and_nearest(
    space: MixtureSpace, distance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inside = space.sample(100, rng)
    x = inside[:8] + distance * rng.normal(size=(8, len(space)))
    projected = space.project(x)
    assert_allowed(space, projected)
    assert np.abs(space.project(projected) - projected).max() <= 1e-12
    # The variational inequality: no allowed mixture lies further toward x than the projection.
    corners = space._frame.corners
    others = np.concatenate([inside, corners, space.perturb(projected, 0.01, rng)])
    for point, nearest in zip(x, projected, strict=True):
        direction = (point - nearest) / max(1.0, np.linalg.norm(point - nearest))
        assert ((others - nearest) @ direction).max() <= 1e-7


def constrained_space() -> MixtureSpace:
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(8)]
    return MixtureSpace(
        names,
        lower={"c0": 0.05},
        upper={"c1": 0.2},
        composition=rng.dirichlet(np.ones(5), size=8),
        datasets=[f"d{i}" for i in range(5)],
        tokens=np.full(5, 0.23),
        budget=1.0,
        max_epochs=1.0,
        groups=[Group("front", ("c2", "c3", "c4"), lower=0.3, upper=0.4)],
    )


def test_projection_agrees_with_a_general_solver() -> None:
    space = constrained_space()
    rng = np.random.default_rng(0)
    for x in rng.normal(0.125, 0.2, size=(10, 8)):
        constraints = [
            {"type": "eq", "fun": lambda w: w.sum() - 1.0},
            {"type": "ineq", "fun": lambda w: space.caps - w @ space.composition},
            {"type": "ineq", "fun": lambda w: w[2:5].sum() - 0.3},
            {"type": "ineq", "fun": lambda w: 0.4 - w[2:5].sum()},
        ]
        solution = minimize(
            lambda w, x=x: ((w - x) ** 2).sum(),
            space.center,
            jac=lambda w, x=x: 2 * (w - x),
            method="SLSQP",
            bounds=list(zip(space.lower, space.upper, strict=True)),
            constraints=constraints,
            options={"ftol": 1e-15, "maxiter": 500},
        )
        np.testing.assert_allclose(space.project(x), solution.x, atol=1e-6)


def test_projection_obeys_an_equality_of_a_group() -> None:
    space = MixtureSpace(["a", "b", "c", "d"], groups=[Group("ab", ("a", "b"), 0.3, 0.3)])
    w = space.project([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(w, [0.3, 0.0, 0.35, 0.35], atol=1e-12)


def test_points_inside_stay() -> None:
    space = constrained_space()
    w = space.sample(200, np.random.default_rng(0))
    np.testing.assert_array_equal(space.project(w), w)


def test_one_point_and_many_agree() -> None:
    space = constrained_space()
    x = np.random.default_rng(1).normal(size=(3, 8))
    np.testing.assert_array_equal(space.project(x)[1], space.project(x[1]))
    assert space.project(x[1]).shape == (8,)
    assert space.project(np.empty((0, 8))).shape == (0, 8)


def test_the_center_and_equal_weights_can_be_projected() -> None:
    space = constrained_space()
    np.testing.assert_allclose(space.project(space.center), space.center, atol=1e-12)
    # Shifts along the diagonal do not change the nearest point.
    np.testing.assert_allclose(space.project(space.center + 0.7), space.center, atol=1e-12)


@pytest.mark.parametrize(
    ("w", "words"),
    [
        ([0.5, 0.5], "shape"),
        (np.zeros((2, 3, 7)), "shape"),
        (0.5, "shape"),
        ([1.0, np.nan, 0, 0, 0, 0, 0], "math1"),
        ([[0.0] * 7, [np.inf] * 7], "general"),
        (["x"] * 7, "numbers"),
    ],
)
def test_points_which_are_no_weights_are_refused(w: object, words: str) -> None:
    with pytest.raises(DemixError, match=words):
        paper_space().project(w)  # type: ignore[arg-type]
