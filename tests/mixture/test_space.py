from __future__ import annotations

import doctest
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.mixture import space as _space
from tests.mixture.spaces import (
    HALF_WEB,
    NAMES,
    PAPER_TOKENS,
    assert_allowed,
    full_space,
    paper_space,
    spaces,
)


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


class TestComposition:
    def test_data_shares_are_weights_times_composition(self) -> None:
        # The best published mixture: general 0.218 as merge weight is 0.609 as data share.
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

    def test_rounded_rows_are_normalized(self) -> None:
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
        ({"web": 0.5, "code": 0.5}, {}, "components.*a mapping.*weights belong in prior="),
        ({"web", "code"}, {}, "components.*a set has no order"),
        (frozenset(NAMES), {}, "components.*a set has no order"),
        (NAMES, {"datasets": {"x": 1, "y": 2}}, "datasets.*a mapping"),
        (NAMES, {"prior": [1, np.nan, 1]}, "prior of 'code'.*nan"),
        (NAMES, {"prior": {"web": 1, "code": "2", "math": 1}}, "prior of 'code' must be a number"),
        (NAMES, {"lower": {"web": np.nan}}, "lower bound of 'web'.*nan"),
        (NAMES, {"upper": np.inf}, "upper bound of 'web'.*inf"),
        (NAMES, {"min_weight": np.nan}, "min_weight.*nan"),
        (NAMES, {"min_weight": True}, "min_weight must be a number, got True"),
    ],
)
def test_unusable_arguments_are_refused_by_name(
    components: Any, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        MixtureSpace(components, **arguments)
    assert "\n" not in str(caught.value)


def test_names_may_hold_slashes() -> None:
    """Published mixtures name a source and its topic: ``dolma3_cc/health_high``."""
    names = ["dolma3_cc/health_high", "dolma3_cc/art", "stack_edu/Python"]
    space = MixtureSpace(
        names,
        prior=dict(zip(names, [6, 3, 1], strict=True)),
        lower={names[1]: 0.1},
        tokens={names[2]: 1e9},
        budget=1e10,
        max_epochs={names[2]: 4},
        groups=[
            Group("dolma3_cc/*", names[:2], upper=0.8),  # type: ignore[arg-type]
            Group("code", [names[2]], upper=0.3, of="shares"),  # type: ignore[arg-type]
        ],
        name="stage/2",
    )
    w = space.sample(20, np.random.default_rng(0))
    assert_allowed(space, w)
    assert space.param_names == tuple(f"stage/2/{name}" for name in names)
    assert space.pin({names[0]: 0.6}).lower[0] == 0.6
    assert pickle.loads(pickle.dumps(space)) == space
    plain = MixtureSpace(names, name="stage/2")
    trial = optuna.trial.FixedTrial(dict(zip(plain.param_names, [0.2, 0.3, 0.5], strict=True)))
    assert plain.suggest(trial) == dict(zip(names, [0.2, 0.3, 0.5], strict=True))


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

    def test_the_same_pin_is_the_same_space(self) -> None:
        space = full_space()
        assert space.pin({"code": 0.5}) is space.pin({"code": np.float64(0.5)})
        assert space.pin({"code": 0.5}) is not space.pin({"code": 0.4})

    @settings(max_examples=30)
    @given(spaces(largest=12), st.integers(0, 2**32 - 1))
    def test_pinned_spaces_equal_those_made_with_these_bounds(
        self, space: MixtureSpace, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        w = space.sample(1, rng)[0]
        chosen = rng.choice(len(space), size=rng.integers(1, len(space) + 1), replace=False)
        pinned = space.pin({space.components[i]: w[i] for i in chosen})
        np.testing.assert_allclose(pinned.lower[chosen], w[chosen], atol=1e-9)
        np.testing.assert_array_equal(pinned.lower[chosen], pinned.upper[chosen])
        assert pinned.contains(w, atol=1e-8)
        draws = pinned.sample(20, rng)
        assert_allowed(pinned, draws)
        assert np.all(space.contains(draws))
        twin = pickle.loads(pickle.dumps(pinned))
        assert twin == pinned
        fixed = np.isclose(space.min_weights(), space.max_weights())[chosen].all()
        assert pinned != space or fixed  # where nothing was left to pin, it is the same space
        np.testing.assert_array_equal(twin.prior, pinned.prior)

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


def test_the_documented_example_runs() -> None:
    results = doctest.testmod(_space)
    assert results.attempted > 0 and results.failed == 0


def test_import_loads_neither_scipy_nor_optuna() -> None:
    code = (
        "import sys, optuna_demix.mixture as m, numpy as np\n"
        "s = m.MixtureSpace(['a', 'b', 'c'], upper=0.6)\n"
        "s.perturb(s.sample(9, np.random.default_rng(0)), 0.1, np.random.default_rng(0))\n"
        "print([n for n in ('scipy', 'optuna', 'torch', 'lightgbm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
