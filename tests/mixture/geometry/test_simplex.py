from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

from optuna_demix.mixture.geometry.simplex import extreme_points, project_box, settle


@st.composite
def boxes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    k = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    point = rng.dirichlet(np.full(k, 0.5))
    width = draw(st.sampled_from([0.0, 0.01, 0.3, 1.0]))
    lower = np.maximum(0.0, point - width * rng.random(k))
    return lower, np.minimum(1.0, point + width * rng.random(k)), rng


@given(boxes(), st.sampled_from([1e-6, 0.1, 3.0, 1e6]))
def test_projection_is_the_shifted_and_clipped_point(
    box: tuple[np.ndarray, np.ndarray, np.random.Generator], distance: float
) -> None:
    lower, upper, rng = box
    x = rng.normal(size=(5, len(lower))) * distance
    projected = project_box(x, lower, upper)
    assert np.abs(projected.sum(axis=1) - 1.0).max() <= 1e-12
    assert (projected >= lower).all() and (projected <= upper).all()
    for point, found in zip(x, projected, strict=True):

        def excess(t: float, point: np.ndarray = point) -> float:
            return float(np.clip(point - t, lower, upper).sum() - 1.0)

        if upper.sum() - lower.sum() > 1e-9:
            shift = brentq(excess, point.min() - 2.0, point.max() + 2.0, xtol=1e-15)
            expected = np.clip(point - shift, lower, upper)
            np.testing.assert_allclose(found, expected, atol=1e-12 * max(distance, 100.0))


def test_projection_of_a_point_on_the_simplex_keeps_it() -> None:
    w = np.random.default_rng(0).dirichlet(np.ones(9), size=100)
    np.testing.assert_allclose(project_box(w, np.zeros(9), np.ones(9)), w, atol=1e-15)


def test_projection_of_huge_points_is_finite_and_on_the_simplex() -> None:
    x = np.array([[1e308, -1e308, 0.0], [1e308, 1e308, 1e308]])
    w = project_box(x, np.zeros(3), np.array([0.5, 1.0, 1.0]))
    np.testing.assert_allclose(w, [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]], atol=1e-12)


def test_projection_takes_bounds_of_each_row() -> None:
    upper = np.array([[0.0, 1.0, 1.0], [1.0, 0.1, 1.0]])
    w = project_box(np.full((2, 3), 1 / 3), np.zeros(3), upper)
    np.testing.assert_allclose(w, [[0.0, 0.5, 0.5], [0.45, 0.1, 0.45]], atol=1e-15)


@given(boxes())
def test_extreme_points_are_optimal(
    box: tuple[np.ndarray, np.ndarray, np.random.Generator],
) -> None:
    lower, upper, rng = box
    objectives = rng.normal(size=(4, len(lower)))
    points = extreme_points(objectives, lower, upper)
    assert np.abs(points.sum(axis=1) - 1.0).max() <= 1e-12
    assert (points >= lower).all() and (points <= upper).all()
    for objective, point in zip(objectives, points, strict=True):
        best = linprog(
            -objective,
            A_eq=np.ones((1, len(lower))),
            b_eq=[1.0],
            bounds=np.stack([lower, upper], axis=1),
        )
        assert objective @ point == pytest.approx(-best.fun, abs=1e-6)


def test_settling_gives_missing_mass_to_weights_with_room() -> None:
    upper = np.array([0.5, 0.3, 1.0])
    w = settle(np.array([[0.5 + 1e-10, 0.3, 0.1], [0.2, 0.3, 0.5 - 1e-9]]), np.zeros(3), upper)
    assert np.abs(w.sum(axis=1) - 1.0).max() <= 1e-13
    assert (w <= upper).all()
    # More than one weight's room is missing here.
    filled = settle(np.zeros((1, 3)), np.zeros(3), np.array([0.4, 0.4, 0.4]))
    assert filled.sum() == pytest.approx(1.0, abs=1e-13)
    assert filled.max() <= 0.4


def test_settling_leaves_a_mixture_alone() -> None:
    w = np.random.default_rng(0).dirichlet(np.ones(5), size=50)
    np.testing.assert_array_equal(settle(w, np.zeros(5), np.ones(5)), w)
