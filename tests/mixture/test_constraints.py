from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.mixture.constraints import Constraint, polytope_of

NAMES = ["web", "code", "math"]
HALF_WEB = {
    "web": {"web": 1.0},
    "code": {"web": 0.5, "code": 0.5},
    "math": {"web": 0.5, "math": 0.5},
}


@pytest.mark.parametrize(
    ("arguments", "culprits", "innocents"),
    [
        (
            {"lower": {"web": 0.6, "code": 0.5, "math": 0.01}},
            ["lower bound 0.6 of 'web'", "lower bound 0.5 of 'code'"],
            ["math"],
        ),
        (
            {"upper": 0.3},
            [f"upper bound 0.3 of '{name}'" for name in NAMES],
            ["lower"],
        ),
        (
            {"lower": {"web": 0.2, "math": 0.1}, "upper": {"web": 0.1, "code": 0.5}},
            ["lower bound 0.2 of 'web'", "upper bound 0.1 of 'web'"],
            ["code", "math"],
        ),
        (
            {
                "upper": {"code": 0.2},
                "lower": {"math": 0.01},
                "tokens": {"web": 1e10, "math": 3e9},
                "budget": 1e11,
                "max_epochs": {"web": 2, "math": 4},
            },
            [
                "upper bound 0.2 of 'code'",
                "cap 0.12 on the share of 'math' (4 epochs x 3e9 tokens / 1e11)",
                "cap 0.2 on the share of 'web' (2 epochs x 1e10 tokens / 1e11)",
            ],
            ["lower bound"],
        ),
        (
            {
                "upper": {"code": 0.3, "math": 0.3, "web": 0.9},
                "lower": {"web": 0.05},
                "groups": [Group("stem", ("code", "math"), lower=0.7)],
            },
            [
                "lower bound 0.7 of group 'stem' (weights of 'code' + 'math')",
                "upper bound 0.3 of 'code'",
                "upper bound 0.3 of 'math'",
            ],
            ["'web'"],
        ),
        (
            {
                "composition": HALF_WEB,
                "tokens": {"web": 1e9},
                "budget": 1e10,
                "max_epochs": {"web": 4},
                "upper": {"code": 0.9},
            },
            ["cap 0.4 on the share of 'web' (4 epochs x 1e9 tokens / 1e10)", "0.5 to 1"],
            ["'code'", "one of them"],
        ),
        (
            {
                "composition": HALF_WEB,
                "groups": [
                    {"name": "stem", "members": ["code", "math"], "lower": 0.3, "of": "shares"}
                ],
                "lower": {"web": 0.5, "code": 0.1},
            },
            [
                "lower bound 0.3 of group 'stem' (shares of 'code' + 'math')",
                "lower bound 0.5 of 'web'",
            ],
            ["0.1"],
        ),
        (
            {
                "groups": [
                    Group("cm", ("code", "math"), lower=0.7),
                    Group("wm", ("web", "math"), lower=0.7),
                    Group("cw", ("code", "web"), lower=0.7),
                ],
                "upper": 0.9,
            },
            ["group 'cm'", "group 'wm'", "group 'cw'"],
            ["0.9"],
        ),
        (
            {"lower": [0.5, 0.4, 0.2], "upper": [0.5, 0.4, 0.2]},
            ["weight of 'web' pinned to 0.5", "weight of 'code' pinned to 0.4", "'math'"],
            ["bound"],
        ),
    ],
    ids=[
        "floors",
        "ceilings",
        "crossing bounds",
        "caps",
        "group",
        "impossible cap",
        "group of shares",
        "groups alone",
        "pins",
    ],
)
def test_an_empty_polytope_is_refused_by_name(
    arguments: dict[str, Any], culprits: list[str], innocents: list[str]
) -> None:
    with pytest.raises(ConstraintError) as caught:
        MixtureSpace(NAMES, **arguments)
    message = str(caught.value)
    assert message.startswith("no mixture can satisfy: ")
    assert "\n" not in message
    for culprit in culprits:
        assert culprit in message
    for innocent in innocents:
        assert innocent not in message


def feasible(constraints: list[Constraint], k: int) -> bool:
    result = linprog(
        np.zeros(k),
        A_ub=np.array([c.row for c in constraints]) if constraints else None,
        b_ub=[c.bound for c in constraints] if constraints else None,
        A_eq=np.ones((1, k)),
        b_eq=[1.0],
        bounds=(0, None),
    )
    return bool(result.status == 0)


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(2, 14), st.integers(0, 2**32 - 1))
def test_culprits_clash_and_each_of_them_is_needed(k: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constraints = []
    for index in range(count):
        row = (rng.random(k) < rng.choice([0.2, 0.5])).astype(float)
        if rng.random() < 0.3:
            row = rng.random(k)
        sign = rng.choice([-1.0, 1.0])
        bound = round(float(rng.random()), 3) * (row.mean() + 0.2)
        constraints.append(Constraint(sign * row, sign * bound, f"<{index}>"))
    try:
        polytope_of(constraints, k)
    except ConstraintError as error:
        culprits = [c for c in constraints if c.text in str(error)]
        assert culprits
        assert not feasible(culprits, k)
        for innocent in culprits:
            assert feasible([c for c in culprits if c is not innocent], k)
    else:
        assert feasible(constraints, k)


def test_constraints_which_only_just_touch_are_satisfiable() -> None:
    thirds = MixtureSpace(NAMES, lower=1 / 3, upper=1 / 3)
    assert thirds.contains([1 / 3] * 3)
    # 0.1 + 0.2 + 0.7 is 1 up to rounding only.
    space = MixtureSpace(
        NAMES, tokens=[0.1, 0.2, 0.7], budget=1.0, max_epochs=1.0, composition=np.eye(3)
    )
    np.testing.assert_allclose(space.sample(5, np.random.default_rng(0))[0], [0.1, 0.2, 0.7])
    with pytest.raises(ConstraintError, match="upper bound 0.333333 of 'web'"):
        MixtureSpace(NAMES, upper=0.333333)


def test_a_floor_that_rounding_lifts_above_one_stays_on_the_simplex() -> None:
    almost = np.nextafter(1.0, 0.0)  # a share of one divided by it is above one
    floor = Group("all", members=("web",), lower=1.0, of="shares")
    space = MixtureSpace(
        ["web"], composition=np.array([[almost]]), datasets=["web"], groups=[floor]
    )
    assert space.sample(4, np.random.default_rng(0)).max() == 1.0


def test_the_bound_of_a_single_weight_holds_to_the_last_bit() -> None:
    almost = np.nextafter(1.0, 0.0)
    exact = Group("all", ("web",), lower=almost, upper=almost)
    space = MixtureSpace(["web"], lower=almost, groups=[exact])
    w = np.full((9, 1), almost)
    blended = space.blend(w, w, np.linspace(0, 1, 9), np.random.default_rng(0))
    assert (blended >= space.lower).all()


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_a_share_that_all_but_one_hold_alike_is_a_bound_of_that_weight(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = np.full(k, 0.5)
    row[0] = 1.0
    cap = 0.5 + 0.5 * rng.random()
    assume(cap < 1.0)
    polytope = polytope_of([Constraint(row, cap, "cap")], k)
    assert len(polytope.rows) == 0
    assert polytope.upper[0] == pytest.approx(2 * cap - 1, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "", "members": ["web"]}, "non-empty name"),
        ({"name": "g", "members": []}, "at least one"),
        ({"name": "g", "members": "web"}, "list of names"),
        ({"name": "g", "members": ["web", "web"]}, "named twice"),
        ({"name": "g", "members": ["web"], "lower": -0.1}, "lower bound of group 'g'"),
        ({"name": "g", "members": ["web"], "upper": 1.5}, "upper bound of group 'g'"),
        ({"name": "g", "members": ["web"], "upper": "much"}, "must be a number"),
        ({"name": "g", "members": ["web"], "lower": 0.5, "upper": 0.4}, "exceeds its upper"),
        ({"name": "g", "members": ["web"], "of": "tokens"}, "'tokens'"),
        ({"name": "g", "members": ["web"], "uper": 0.4}, "unknown field 'uper'"),
        ({"name": "g"}, "no field 'members'"),
        ({"name": "g", "members": ["wbe"]}, "did you mean 'web'"),
        ({"name": "g", "members": {"web": 2.0, "code": 1.0}}, "coefficients"),
        ({"name": "g", "members": {"web", "code"}}, "members of group 'g'.*a set has no order"),
        ({"name": "g", "members": ["web"], "upper": float("nan")}, "upper bound.*nan"),
    ],
)
def test_unusable_groups_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, ConstraintError), match=words):
        MixtureSpace(NAMES, groups=[fields])


def test_groups_must_be_groups_of_distinct_names() -> None:
    group = Group("g", ("web",), upper=0.5)
    with pytest.raises(ConfigError, match="'g' is named twice"):
        MixtureSpace(NAMES, groups=[group, group])
    with pytest.raises(ConfigError, match="Group or a mapping"):
        MixtureSpace(NAMES, groups=["stem"])  # type: ignore[list-item]


def test_groups_of_shares_name_datasets() -> None:
    group = Group("books", ("books",), upper=0.4, of="shares")
    with pytest.raises(ConfigError, match="'books'"):
        MixtureSpace(NAMES, groups=[group])
    space = MixtureSpace(
        ["a", "b"], composition={"a": {"books": 1}, "b": {"web": 1}}, groups=[group]
    )
    np.testing.assert_allclose(space.max_weights(), [0.4, 1.0])


def test_a_group_is_immutable_and_comparable() -> None:
    group = Group("g", ["web", "code"], lower=0)  # type: ignore[arg-type]
    assert group == Group("g", ("web", "code"), lower=0.0)
    assert group.members == ("web", "code") and isinstance(group.lower, float)
    with pytest.raises(AttributeError):
        group.lower = 0.5  # type: ignore[misc]
