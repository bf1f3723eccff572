from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optuna_demix.errors import ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import assert_allowed, paper_space, space_arguments


def with_minimum(arguments: dict[str, Any], least: float) -> MixtureSpace | None:
    try:
        return MixtureSpace(**arguments, min_weight=least)
    except ConstraintError:
        return None


def assert_no_small_weights(space: MixtureSpace, w: np.ndarray) -> None:
    assert_allowed(space, w)
    small = (w > 0) & (w < space.min_weight * (1 - 1e-9))
    assert not small.any(), w[small.any(axis=1)][:1]
    assert np.all(space.contains(w))


@settings(max_examples=25)
@given(space_arguments(largest=12), st.sampled_from([0.01, 0.05, 0.15]), st.integers(0, 2**32 - 1))
def test_every_point_has_weights_of_zero_or_the_minimum(
    arguments: dict[str, Any], least: float, seed: int
) -> None:
    space = with_minimum(arguments, least)
    assume(space is not None)
    assert space is not None
    rng = np.random.default_rng(seed)
    w = space.sample(50, rng)
    assert_no_small_weights(space, w)
    assert_no_small_weights(space, space.perturb(w, 0.05, rng))
    assert_no_small_weights(space, space.blend(w[:25], w[25:], rng.random(25), rng))
    assert_no_small_weights(space, space.project(rng.standard_normal((10, len(space)))))
    assert_no_small_weights(space, np.stack([space.prior, space.center]))


@settings(max_examples=30)
@given(space_arguments(largest=8), st.sampled_from([0.05, 0.2, 0.4]))
def test_a_space_is_refused_only_when_no_support_is_possible(
    arguments: dict[str, Any], least: float
) -> None:
    base = MixtureSpace(**arguments)
    most = base.max_weights()
    assume(not np.any((most > 1e-9) & (most < least)))  # refused for that alone
    if with_minimum(arguments, least) is not None:
        return
    k = len(base)
    for chosen in itertools.product([False, True], repeat=k):
        support = np.array(chosen)
        lower = np.where(support, np.maximum(base.lower, least), base.lower)
        upper = np.where(support, base.upper, 0.0)
        with pytest.raises(ConstraintError):
            MixtureSpace(**{**arguments, "lower": lower, "upper": upper})


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
    assert_no_small_weights(space, w)
    assert len(np.unique(w > 0, axis=0)) > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_weight": 0.4, "lower": 0.3}, "min_weight"),
        ({"min_weight": 0.3, "upper": {"a": 0.2}}, "allow 'a' 0.2 at most"),
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
    assert_no_small_weights(pinned, pinned.sample(50, np.random.default_rng(0)))


def test_the_minimum_belongs_to_the_identity_of_a_space() -> None:
    space = MixtureSpace(["a", "b", "c"], min_weight=0.1)
    assert space != MixtureSpace(["a", "b", "c"])
    assert pickle.loads(pickle.dumps(space)) == space
    assert "min_weight=0.1" in repr(space)
    assert "min_weight" not in MixtureSpace(["a", "b"]).fingerprint()


SOURCES = ["web", "code", "math", "law"]


def test_limits_below_the_minimum_are_refused_together() -> None:
    """Whatever keeps a component below the minimum would leave it out without a word."""
    arguments: dict[str, Any] = {
        "components": [*SOURCES, "books"],
        "tokens": {"math": 1e8},
        "budget": 1e10,
        "max_epochs": {"math": 3},
        "upper": {"law": 0.02},
        "groups": [Group("books", ("books",), upper=0.041237)],
    }
    with pytest.raises(ConstraintError) as caught:
        MixtureSpace(**arguments, min_weight=0.05)
    assert MixtureSpace(**arguments, min_weight=0.02).max_weights()[3] == 0.02
    message = str(caught.value)
    for part in ("min_weight is 0.05", "'math' 0.03", "'law' 0.02", "'books' 0.04123", "to 0.02"):
        assert part in message
    assert "'web'" not in message and "\n" not in message


@pytest.mark.parametrize(("least", "refused"), [(0.05, False), (0.07, True)])
def test_caps_on_data_are_compared_as_merge_weights(least: float, refused: bool) -> None:
    """Half of every component is general data: a share of 0.03 is a merge weight of 0.06."""
    table = 0.5 * np.eye(4)
    table[:, 0] += 0.5
    arguments = {
        "composition": table,
        "tokens": {"math": 3e8},
        "budget": 1e10,
        "max_epochs": {"math": 1},
    }
    if not refused:
        space = MixtureSpace(SOURCES, **arguments, min_weight=least)  # type: ignore[arg-type]
        assert (space.sample(200, np.random.default_rng(0))[:, 2] > 0).any()
        return
    with pytest.raises(ConstraintError, match="'math' 0.06 at most; lower min_weight to 0.06"):
        MixtureSpace(SOURCES, **arguments, min_weight=least)  # type: ignore[arg-type]


def test_a_component_is_left_out_when_its_upper_bound_says_so() -> None:
    space = MixtureSpace(
        SOURCES,
        min_weight=0.05,
        upper={"math": 0.0},
        tokens={"math": 1e8},
        budget=1e10,
        max_epochs={"math": 3},
    )
    assert (space.sample(50, np.random.default_rng(0))[:, 2] == 0).all()


def test_a_pin_may_leave_room_for_fewer_components() -> None:
    space = MixtureSpace(
        SOURCES, min_weight=0.1, groups=[Group("stem", ("code", "math"), upper=0.15)]
    )
    pinned = space.pin({"code": 0.1})
    assert pinned.max_weights()[2] == pytest.approx(0.05)
    assert pinned.project([0.5, 0.1, 0.04, 0.36])[2] == 0.0
    assert pickle.loads(pickle.dumps(pinned)) == pinned


def test_a_mixture_found_by_rounding_needs_no_integer_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an integer program")

    monkeypatch.setattr("scipy.optimize.milp", refuse)
    space = paper_space(min_weight=0.05, groups=[Group("code", ("code1", "code2"), upper=0.3)])
    assert_no_small_weights(space, space.pin({"math1": 0.2}).sample(50, np.random.default_rng(0)))
