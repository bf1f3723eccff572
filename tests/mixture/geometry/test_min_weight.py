from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optuna_demix.errors import ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import assert_allowed, paper_space, spaces


def with_minimum(space: MixtureSpace, least: float) -> MixtureSpace | None:
    try:
        return MixtureSpace(**{**space._spec, "min_weight": least})
    except ConstraintError:
        return None


def assert_no_crumbs(space: MixtureSpace, w: np.ndarray) -> None:
    assert_allowed(space, w)
    crumbs = (w > 0) & (w < space.min_weight * (1 - 1e-9))
    assert not crumbs.any(), w[crumbs.any(axis=1)][:1]
    assert np.all(space.contains(w))


@settings(max_examples=60, deadline=None)
@given(spaces(largest=12), st.sampled_from([0.01, 0.05, 0.15]), st.integers(0, 2**32 - 1))
def test_every_point_has_weights_of_zero_or_the_minimum(
    base: MixtureSpace, least: float, seed: int
) -> None:
    space = with_minimum(base, least)
    assume(space is not None)
    assert space is not None
    rng = np.random.default_rng(seed)
    w = space.sample(50, rng)
    assert_no_crumbs(space, w)
    assert_no_crumbs(space, space.perturb(w, 0.05, rng))
    assert_no_crumbs(space, space.blend(w[:25], w[25:], rng.random(25), rng))
    assert_no_crumbs(space, space.project(rng.standard_normal((10, len(space)))))
    assert_no_crumbs(space, np.stack([space.prior, space.center]))


@settings(max_examples=40, deadline=None)
@given(spaces(largest=8), st.sampled_from([0.05, 0.2, 0.4]))
def test_a_space_is_refused_only_when_no_support_is_possible(
    base: MixtureSpace, least: float
) -> None:
    assume(not np.any((base.upper > 0) & (base.upper < least)))  # refused for that alone
    if with_minimum(base, least) is not None:
        return
    k = len(base)
    for chosen in itertools.product([False, True], repeat=k):
        support = np.array(chosen)
        arguments = {
            **base._spec,
            "lower": np.where(support, np.maximum(base.lower, least), base.lower),
            "upper": np.where(support, base.upper, 0.0),
        }
        with pytest.raises(ConstraintError):
            MixtureSpace(**arguments)


def test_small_weights_go_to_the_nearer_end() -> None:
    space = MixtureSpace(["a", "b", "c"], min_weight=0.1)
    near = space.project([[0.03, 0.47, 0.5], [0.08, 0.46, 0.46]])
    assert near == pytest.approx(np.array([[0, 0.485, 0.515], [0.1, 0.45, 0.45]]))


def test_a_support_that_breaks_a_group_is_replaced_by_the_nearest_that_does_not() -> None:
    space = MixtureSpace(
        ["a", "b", "c"], min_weight=0.2, groups=[Group("ab", ["a", "b"], lower=0.15, upper=0.3)]
    )
    nearest = space.project([0.08, 0.09, 0.83])
    assert nearest == pytest.approx([0.0, 0.2, 0.8])


def test_drawing_from_a_constrained_space_keeps_many_supports() -> None:
    space = paper_space(min_weight=0.05)
    w = space.sample(500, np.random.default_rng(0))
    assert_no_crumbs(space, w)
    assert len(np.unique(w > 0, axis=0)) > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_weight": 0.4, "lower": 0.3}, "min_weight"),
        ({"min_weight": 0.3, "upper": {"a": 0.2}}, "the upper bound of 'a' is 0.2"),
        ({"min_weight": 0.6, "upper": 0.7}, "lower it"),
    ],
)
def test_a_minimum_that_leaves_nothing_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConstraintError, match=words):
        MixtureSpace(["a", "b", "c"], **change)  # type: ignore[arg-type]


def test_a_pin_between_zero_and_the_minimum_is_refused() -> None:
    space = MixtureSpace(["a", "b", "c"], min_weight=0.1)
    with pytest.raises(ConstraintError, match="pin it to 0 or at least that"):
        space.pin({"a": 0.05})
    pinned = space.pin({"a": 0.0})
    assert_no_crumbs(pinned, pinned.sample(50, np.random.default_rng(0)))


def test_the_minimum_belongs_to_the_identity_of_a_space() -> None:
    space = MixtureSpace(["a", "b", "c"], min_weight=0.1)
    assert space != MixtureSpace(["a", "b", "c"])
    assert pickle.loads(pickle.dumps(space)) == space
    assert "min_weight=0.1" in repr(space)
    assert "min_weight" not in MixtureSpace(["a", "b"]).fingerprint()
