from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.errors import DemixError
from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import assert_allowed, paper_space, spaces


@settings(max_examples=30)
@given(spaces(), st.sampled_from([1e-4, 0.05, 1.0]), st.integers(0, 2**32 - 1))
def test_every_move_stays_inside(space: MixtureSpace, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = space.sample(200, rng)
    assert_allowed(space, space.perturb(w, scale, rng))
    assert space.perturb(w[0], scale, rng).shape == (len(space),)


def test_moves_have_the_given_scale() -> None:
    space = MixtureSpace([f"c{i}" for i in range(6)], lower=0.01)
    w = np.repeat(space.center[None, :], 5000, axis=0)
    for scale in (1e-3, 1e-2):
        moved = space.perturb(w, scale, np.random.default_rng(0)) - w
        size = np.abs(moved).max(axis=1)
        assert 0.5 * scale < size.mean() < 3 * scale
        assert size.max() < 6 * scale


def test_each_row_can_have_its_scale() -> None:
    space = MixtureSpace(["a", "b", "c"])
    w = np.full((1000, 3), 1 / 3)
    scale = np.where(np.arange(1000) < 500, 1e-4, 1e-1)
    size = np.abs(space.perturb(w, scale, np.random.default_rng(0)) - w).max(axis=1)
    assert size[:500].max() < 1e-3
    assert size[500:].mean() > 1e-2


def test_moves_are_dense_or_between_two_weights_or_take_one_out() -> None:
    space = MixtureSpace([f"c{i}" for i in range(6)])
    w = np.tile([0.02, 0.03, 0.15, 0.2, 0.25, 0.35], (3000, 1))
    moved = space.perturb(w, 0.01, np.random.default_rng(0))
    changed = (np.abs(moved - w) > 1e-12).sum(axis=1)
    pairs = changed == 2
    taken_out = (moved[:, :2] == 0).any(axis=1) & (changed == 6)
    dense = (changed == 6) & (moved > 0).all(axis=1)
    assert pairs.mean() > 0.3 and dense.mean() > 0.3 and taken_out.mean() > 0.1
    # What is left after taking a weight out keeps its proportions.
    row = moved[(moved[:, 0] == 0) & (np.abs(moved[:, 2] / moved[:, 3] - 0.75) < 1e-12)]
    assert len(row) > 0


def test_a_weight_is_not_taken_out_where_the_others_cannot_take_its_mass() -> None:
    space = MixtureSpace(["a", "b", "c"], upper=[1.0, 0.5, 0.45])
    w = np.tile([0.06, 0.5, 0.44], (500, 1))
    moved = space.perturb(w, 0.05, np.random.default_rng(0))
    assert_allowed(space, moved)
    assert moved[:, 0].min() >= 0.05 - 1e-12


def test_moves_leave_a_corner() -> None:
    space = paper_space()
    corner = space.project([0, 9, 9, 9, 9, 9, 0])
    moved = space.perturb(np.tile(corner, (100, 1)), 0.05, np.random.default_rng(0))
    assert (np.abs(moved - corner).max(axis=1) > 1e-3).mean() > 0.8


def test_moves_keep_pins_and_group_equalities() -> None:
    space = MixtureSpace(
        ["a", "b", "c", "d", "e"],
        lower={"a": 0.2},
        upper={"a": 0.2},
        groups=[Group("bc", ("b", "c"), 0.3, 0.3)],
    )
    w = space.sample(1000, np.random.default_rng(0))
    moved = space.perturb(w, 0.05, np.random.default_rng(1))
    assert (moved[:, 0] == 0.2).all()
    np.testing.assert_allclose(moved[:, 1:3].sum(axis=1), 0.3, atol=1e-12)
    assert (np.abs(moved - w).max(axis=1) > 1e-4).mean() > 0.8


def test_points_outside_are_projected_first() -> None:
    space = paper_space()
    moved = space.perturb([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(moved, space.project([0, 0, 1, 0, 0, 0, 0]), atol=1e-12)


@pytest.mark.parametrize("scale", [-0.1, np.nan, np.inf])
def test_a_scale_is_finite_and_not_negative(scale: float) -> None:
    with pytest.raises(DemixError, match="scale"):
        paper_space().perturb(paper_space().prior, scale, np.random.default_rng(0))


def test_moves_do_not_change_their_argument() -> None:
    space = paper_space()
    w = space.sample(50, np.random.default_rng(0))
    before = w.copy()
    space.perturb(w, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(w, before)
