from __future__ import annotations

import copy
import doctest
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linprog

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.mixture import space as _space
from tests.mixture.spaces import PAPER_TOKENS, assert_allowed, paper_space, spaces

NAMES = ["web", "code", "math"]
HALF_WEB = {
    "web": {"web": 1.0},
    "code": {"web": 0.5, "code": 0.5},
    "math": {"web": 0.5, "math": 0.5},
}


def full_space(**changes: Any) -> MixtureSpace:
    """A space which uses every argument."""
    arguments: dict[str, Any] = {
        "prior": {"web": 6, "code": 3, "math": 1},
        "lower": {"code": 0.05},
        "upper": [0.9, 0.8, 0.5],
        "composition": HALF_WEB,
        "tokens": {"web": 6e9, "code": 2e9, "math": 3e8},
        "budget": 1e10,
        "max_epochs": {"math": 4},
        "groups": [Group("stem", ("code", "math"), lower=0.2, of="shares")],
        "name": "late",
    }
    return MixtureSpace(NAMES, **{**arguments, **changes})


def test_attributes() -> None:
    space = full_space()
    assert space.components == ("web", "code", "math") == space.datasets
    assert space.param_names == ("late/web", "late/code", "late/math")
    np.testing.assert_allclose(space.prior, [0.6, 0.3, 0.1])
    np.testing.assert_array_equal(space.lower, [0.0, 0.05, 0.0])
    np.testing.assert_array_equal(space.upper, [0.9, 0.8, 0.5])
    np.testing.assert_array_equal(space.composition, [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(space.caps, [np.inf, np.inf, 0.12])
    assert space.tokens is not None
    np.testing.assert_array_equal(space.tokens, [6e9, 2e9, 3e8])
    assert (space.budget, space.name, len(space)) == (1e10, "late", 3)
    assert space.groups[0].name == "stem"
    np.testing.assert_allclose(space.max_weights(), [0.6, 0.8, 0.24], atol=1e-9)
    np.testing.assert_allclose(space.min_weights(), [0.0, 0.16, 0.0], atol=1e-9)


def test_nothing_can_be_changed() -> None:
    space = full_space()
    with pytest.raises(AttributeError):
        space.name = "early"  # type: ignore[misc]
    for array in (space.prior, space.lower, space.composition, space.caps, space.center):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.5
    given = np.array([0.5, 0.3, 0.2])
    space = MixtureSpace(NAMES, prior=given, upper=given + 0.1)
    given[:] = 0.0
    np.testing.assert_allclose(space.prior, [0.5, 0.3, 0.2])


class TestPrior:
    def test_defaults_to_the_tokens_of_datasets_named_like_the_components(self) -> None:
        space = MixtureSpace(NAMES, tokens={"math": 1.0, "web": 6.0, "code": 3.0})
        np.testing.assert_allclose(space.prior, [0.6, 0.3, 0.1])

    def test_is_uniform_where_a_count_is_missing(self) -> None:
        np.testing.assert_allclose(MixtureSpace(NAMES).prior, 1 / 3)
        np.testing.assert_allclose(MixtureSpace(NAMES, tokens={"web": 6.0}).prior, 1 / 3)
        np.testing.assert_allclose(MixtureSpace(NAMES, tokens=[6.0, None, 1.0]).prior, 1 / 3)

    def test_outside_is_projected_but_remembered(self) -> None:
        space = MixtureSpace(NAMES, prior=[8, 1, 1], upper={"web": 0.5})
        np.testing.assert_allclose(space.prior, [0.5, 0.25, 0.25])
        assert space.fingerprint()["prior"] == [0.8, 0.1, 0.1]


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_prior_and_centre_are_allowed(space: MixtureSpace) -> None:
    assert_allowed(space, np.stack([space.prior, space.center]))
    assert (space.center >= space.min_weights() - 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(spaces(largest=8))
def test_ranges_of_the_weights_are_attainable_and_tight(space: MixtureSpace) -> None:
    rows = [space.composition.T[np.isfinite(space.caps)]]
    bounds = [space.caps[np.isfinite(space.caps)]]
    for group in space.groups:
        names = space.components if group.of == "weights" else space.datasets
        chosen = np.isin(names, group.members).astype(float)
        row = chosen if group.of == "weights" else space.composition @ chosen
        rows.append(np.stack([row, -row]))
        bounds.append(np.array([group.upper, -group.lower]))
    for i in range(len(space)):
        for sign, ends in ((1.0, space.min_weights()), (-1.0, space.max_weights())):
            cost = np.zeros(len(space))
            cost[i] = sign
            result = linprog(
                cost,
                A_ub=np.concatenate(rows),
                b_ub=np.concatenate(bounds) + 1e-9,
                A_eq=np.ones((1, len(space))),
                b_eq=[1.0],
                bounds=np.stack([space.lower, np.maximum(space.upper, space.lower)], axis=1),
            )
            assert ends[i] == pytest.approx(sign * result.fun, abs=1e-5)


class TestComposition:
    def test_data_shares_are_weights_times_composition(self) -> None:
        # The best published mixture: general .218 as merge weight is .609 as data share.
        table = 0.5 * np.eye(7)
        table[:, 0] += 0.5
        space = paper_space(composition=table, max_epochs=None)
        w = np.array([0.218, 0.403, 0.002, 0.063, 0.044, 0.176, 0.094])
        shares = space.data_shares(w)
        assert shares[0] == pytest.approx(0.609)
        np.testing.assert_allclose(shares[1:], w[1:] / 2)
        np.testing.assert_allclose(space.data_shares(np.stack([w, w]))[1], shares, rtol=1e-14)

    def test_names_of_datasets_come_from_the_mapping_components_first(self) -> None:
        space = MixtureSpace(
            ["a", "b"], composition={"b": {"x": 0.5, "b": 0.5}, "a": {"y": 0.1, "x": 0.9}}
        )
        assert space.datasets == ("b", "y", "x")
        np.testing.assert_array_equal(space.composition, [[0, 0.1, 0.9], [0.5, 0, 0.5]])

    def test_given_names_fix_the_order(self) -> None:
        space = MixtureSpace(["a"], composition={"a": {"x": 1.0}}, datasets=["y", "x"])
        np.testing.assert_array_equal(space.composition, [[0.0, 1.0]])

    def test_rounded_rows_are_normalised(self) -> None:
        third = 0.3333333
        space = MixtureSpace(["a"], composition=[[third, third, third]], datasets=["x", "y", "z"])
        assert abs(space.composition.sum() - 1.0) < 1e-15

    @pytest.mark.parametrize(
        ("composition", "datasets", "words"),
        [
            ({**HALF_WEB, "code": {"web": 0.5, "code": 0.4}}, None, "'code' sums to 0.9"),
            ({"web": {"web": 1.0}, "code": {"web": 1.0}}, None, "lacks component 'math'"),
            ({**HALF_WEB, "maths": {"web": 1.0}}, None, "'maths'.*did you mean 'math'"),
            ({**HALF_WEB, "code": {"wbe": 1.0}}, NAMES, "did you mean 'web'"),
            ({**HALF_WEB, "code": 0.5}, None, "'code': a mapping"),
            ({**HALF_WEB, "code": {"web": 1.5, "code": -0.5}}, None, "share of 'code'"),
            ({**HALF_WEB, "code": {"web": float("nan")}}, None, "share of 'web'"),
            ({**HALF_WEB, "code": {"web": "half"}}, None, "must be a number"),
            (np.eye(2), None, "one row a component"),
            (np.ones((3, 2)) / 2, None, "3 names do not fit the 2 columns"),
            (np.ones((3, 2)) / 2, ["x", "x"], "named twice"),
            ("identity", None, "mapping or a table"),
            (None, ["x", "y"], "give a composition"),
        ],
    )
    def test_unusable_compositions_are_refused(
        self, composition: Any, datasets: list[str] | None, words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            MixtureSpace(NAMES, composition=composition, datasets=datasets)


class TestCaps:
    def test_caps_are_epochs_times_tokens_over_budget(self) -> None:
        space = paper_space(budget=2 * sum(PAPER_TOKENS))
        np.testing.assert_allclose(space.caps, 2 * np.array(PAPER_TOKENS) / sum(PAPER_TOKENS))

    def test_only_named_datasets_are_capped(self) -> None:
        space = MixtureSpace(NAMES, tokens={"math": 1e9}, budget=1e10, max_epochs={"math": 2})
        np.testing.assert_allclose(space.caps, [np.inf, np.inf, 0.2])
        np.testing.assert_allclose(space.max_weights(), [1.0, 1.0, 0.2])

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"max_epochs": 4}, "tokens of 'web', 'code', 'math'"),
            ({"max_epochs": 4, "tokens": [1, 2, 3]}, "budget"),
            ({"max_epochs": 4, "tokens": [1, 2, 3], "budget": 0}, "budget"),
            ({"max_epochs": 4, "tokens": {"web": 1, "math": 1}, "budget": 9}, "tokens of 'code'"),
            ({"max_epochs": {"wbe": 4}}, "did you mean 'web'"),
            ({"max_epochs": -1, "tokens": [1, 2, 3], "budget": 1}, "max_epochs of 'web'"),
            ({"tokens": {"wbe": 1}}, "did you mean 'web'"),
            ({"tokens": [1, 2]}, "3 values are needed, got 2"),
            ({"tokens": [1, 2, -3]}, "tokens of 'math'"),
            ({"tokens": 5}, "a mapping or a list"),
            ({"budget": "all"}, "budget must be a number"),
            ({"budget": -1}, "budget must be"),
        ],
    )
    def test_unusable_counts_are_refused(self, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            MixtureSpace(NAMES, **arguments)


@pytest.mark.parametrize(
    ("components", "arguments", "words"),
    [
        ([], {}, "at least one"),
        ("web", {}, "list of names"),
        (["web", ""], {}, "non-empty"),
        (["web", 3], {}, "non-empty strings, got 3"),
        (["web", "web"], {}, "'web' is named twice"),
        (NAMES, {"prior": {"web": 1, "mth": 1}}, "did you mean 'math'"),
        (NAMES, {"prior": {"web": 1}}, "lacks 'code', 'math'"),
        (NAMES, {"prior": [0, 0, 0]}, "above 0"),
        (NAMES, {"prior": [1, -1, 1]}, "prior of 'code'"),
        (NAMES, {"prior": [1, np.inf, 1]}, "prior of 'code'"),
        (NAMES, {"lower": {"wbe": 0.1}}, "lower bound.*did you mean 'web'"),
        (NAMES, {"lower": -0.1}, "lower bound of 'web'"),
        (NAMES, {"upper": [1, 1.2, 1]}, "upper bound of 'code'"),
        (NAMES, {"upper": [1, 1]}, "3 values are needed, got 2"),
        (NAMES, {"upper": "all"}, "upper bound of 'web' must be a number, got 'all'"),
        (NAMES, {"name": ""}, "name must be"),
    ],
)
def test_unusable_arguments_are_refused_by_name(
    components: Any, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        MixtureSpace(components, **arguments)
    assert "\n" not in str(caught.value)


def test_contains() -> None:
    space = full_space()
    inside = np.array([0.5, 0.4, 0.1])
    assert space.contains(inside) is True
    outside = [
        [0.5, 0.4, 0.1 + 1e-6],  # sums to more than 1
        [0.95, 0.05, 0.0],  # above web's bound
        [0.6, 0.04, 0.36],  # below code's bound
        [0.3, 0.4, 0.3],  # math's share .15 above its cap .12
        [0.7, 0.3, 0.0],  # stem's shares .15 below their group's .2
        [1.2, -0.2, 0.0],
        [np.nan, 0.5, 0.5],
        [np.inf, 0.5, 0.5],
    ]
    answers = space.contains([inside, *outside])
    assert isinstance(answers, np.ndarray)
    assert answers.tolist() == [True] + [False] * len(outside)
    assert space.contains(inside + [0, 0, 1e-6], atol=1e-5) is True
    assert MixtureSpace(["a", "b"]).contains([1.5, -0.5]) is False


class TestPin:
    def test_fixes_weights_and_keeps_the_rest(self) -> None:
        space = full_space()
        pinned = space.pin({"code": 0.5})
        w = pinned.sample(500, np.random.default_rng(0))
        assert (w[:, 1] == 0.5).all()
        assert_allowed(pinned, w)
        assert np.all(space.contains(w))
        assert pinned.param_names == space.param_names
        assert space.upper[1] == 0.8  # the original is untouched
        assert pinned.pin({}) == pinned

    def test_all_weights_can_be_pinned(self) -> None:
        pinned = MixtureSpace(NAMES).pin({"web": 0.5, "code": 0.3, "math": 0.2})
        np.testing.assert_array_equal(
            pinned.sample(1, np.random.default_rng(0)), [[0.5, 0.3, 0.2]]
        )

    def test_impossible_pins_are_refused(self) -> None:
        space = full_space()
        with pytest.raises(ConstraintError, match="'code' cannot be pinned to 0.9.*0.8"):
            space.pin({"code": 0.9})
        with pytest.raises(ConstraintError, match="'code' cannot be pinned to 0:.*lower bound"):
            space.pin({"code": 0.0})
        with pytest.raises(ConstraintError, match="'math' pinned to 0.4.*"):
            space.pin({"math": 0.4})
        with pytest.raises(ConfigError, match="did you mean 'math'"):
            space.pin({"maths": 0.4})
        with pytest.raises(ConfigError, match="pin of 'math'"):
            space.pin({"math": 1.4})


class TestIdentity:
    @settings(max_examples=25, deadline=None)
    @given(spaces(largest=12))
    def test_pickled_spaces_are_equal_and_draw_alike(self, space: MixtureSpace) -> None:
        for twin in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
            assert twin == space and hash(twin) == hash(space)
            assert twin.fingerprint() == space.fingerprint()
            assert not twin.prior.flags.writeable
            one = space.sample(20, np.random.default_rng(0))
            np.testing.assert_array_equal(twin.sample(20, np.random.default_rng(0)), one)

    @pytest.mark.parametrize(
        "change",
        [
            {"prior": [6, 2, 2]},
            {"lower": 0.0},
            {"upper": 1.0},
            {"composition": {**HALF_WEB, "math": {"web": 0.4, "math": 0.6}}},
            {"budget": 2e10},
            {"max_epochs": {"math": 3}},
            {"groups": ()},
            {"groups": [Group("stem", ("code", "math"), lower=0.1, of="shares")]},
            {"name": None},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_difference_shows(self, change: dict[str, Any]) -> None:
        space, other = full_space(), full_space(**change)
        assert space == full_space()
        assert space != other
        assert space.fingerprint() != other.fingerprint()

    def test_other_components_differ(self) -> None:
        assert MixtureSpace(["a", "b"]) != MixtureSpace(["b", "a"])
        assert MixtureSpace(["a", "b"]) != "MixtureSpace"

    def test_the_way_of_writing_does_not_matter(self) -> None:
        one = MixtureSpace(
            NAMES,
            prior=[6, 3, 1],
            upper=[1, 0.5, 1],
            groups=[Group("g", ("web", "code"), 0.1), Group("h", ("math",), 0.1)],
        )
        two = MixtureSpace(
            tuple(NAMES),
            prior={"math": 0.1, "code": 0.3, "web": 0.6},
            upper={"code": 0.5 + 1e-16},
            composition=np.eye(3),
            groups=[
                {"name": "h", "members": ["math"], "lower": 0.1},
                {"name": "g", "members": ["code", "web"], "lower": 0.1},
            ],
        )
        assert one == two and one.fingerprint() == two.fingerprint() and len({one, two}) == 1

    def test_fingerprints_are_json_and_copies(self) -> None:
        space = full_space()
        fingerprint = space.fingerprint()
        assert json.loads(json.dumps(fingerprint)) == fingerprint
        assert fingerprint["caps"] == {"math": 0.12}
        fingerprint["prior"][0] = 9.0
        assert space.fingerprint()["prior"] == [0.6, 0.3, 0.1]

    def test_repr_tells_what_constrains(self) -> None:
        text = repr(full_space())
        for part in ("'web', 'code', 'math'", "lower bound 0.05 of 'code'", "'late'", "0.12"):
            assert part in text
        assert repr(MixtureSpace(["a", "b"])) == "MixtureSpace(['a', 'b'], prior=[0.5, 0.5])"


def test_the_documented_example_runs() -> None:
    results = doctest.testmod(_space)
    assert results.attempted > 0 and results.failed == 0


def test_import_loads_neither_scipy_nor_optuna() -> None:
    code = (
        "import sys, optuna_demix.mixture as m, numpy as np\n"
        "s = m.MixtureSpace(['a', 'b', 'c'], upper=.6)\n"
        "s.perturb(s.sample(9, np.random.default_rng(0)), .1, np.random.default_rng(0))\n"
        "print([n for n in ('scipy', 'optuna', 'torch', 'lightgbm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
