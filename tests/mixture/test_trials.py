from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.sampler import DemixSampler
from tests.mixture.spaces import NAMES, assert_allowed, paper_space

KEY = "demix:weights"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def constrained(**changes: Any) -> MixtureSpace:
    arguments: dict[str, Any] = {
        "lower": {"web": 0.1},
        "upper": {"code": 0.5},
        "groups": [Group("stem", ("code", "math"), upper=0.7)],
    }
    return MixtureSpace(NAMES, **{**arguments, **changes})


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.RandomSampler(seed=0),
        optuna.samplers.TPESampler(seed=0, n_startup_trials=5),
        optuna.samplers.QMCSampler(seed=0),
        optuna.samplers.NSGAIISampler(seed=0, population_size=5),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_weights_are_allowed_under_samplers_that_know_no_simplex(
    sampler: optuna.samplers.BaseSampler,
) -> None:
    space = constrained()
    study = optuna.create_study(sampler=sampler)
    seen = []

    def objective(trial: optuna.Trial) -> float:
        weights = space.suggest(trial)
        assert list(weights) == NAMES
        assert all(type(weight) is float for weight in weights.values())
        seen.append(list(weights.values()))
        return weights["code"]

    study.optimize(objective, n_trials=25)
    assert_allowed(space, np.array(seen))
    assert len(np.unique(np.round(seen, 6), axis=0)) > 10
    for trial, weights in zip(study.trials, seen, strict=True):
        assert trial.distributions == space.distributions()
        read = space.weights(trial)
        assert read is not None
        np.testing.assert_array_equal(read, weights)
        json.dumps(trial.user_attrs)


def test_weights_on_the_simplex_are_the_parameters_themselves() -> None:
    space = constrained()
    study = optuna.create_study()
    mixtures = space.sample(10, np.random.default_rng(0))
    for w in mixtures:
        study.enqueue_trial(dict(zip(space.param_names, w.tolist(), strict=True)))
    study.optimize(lambda trial: sum(space.suggest(trial).values()), n_trials=10)
    for trial, w in zip(study.trials, mixtures, strict=True):
        assert trial.user_attrs == {}
        np.testing.assert_array_equal(space.weights(trial), w)
        assert list(trial.params.values()) == w.tolist()


def test_enqueued_values_which_are_no_mixture_are_mended() -> None:
    space = constrained()
    study = optuna.create_study()
    study.enqueue_trial({"web": 0.8, "code": 0.4, "math": 0.4})
    trial = study.ask()
    weights = space.suggest(trial)
    assert weights == pytest.approx({"web": 0.5, "code": 0.25, "math": 0.25})
    assert trial.user_attrs == {KEY: weights}
    # The normalized point breaks a bound here: the nearest allowed one is taken.
    study.enqueue_trial({"web": 0.1, "code": 0.5, "math": 0.0})
    assert space.suggest(study.ask()) == pytest.approx(
        dict(zip(NAMES, space.project([1 / 6, 5 / 6, 0]), strict=True))
    )


@pytest.mark.filterwarnings("ignore:The value")
@pytest.mark.parametrize("value", [-0.2, float("inf")])
def test_fixed_values_which_are_no_weight_fail_the_trial(value: float) -> None:
    trial = optuna.trial.FixedTrial({"web": value, "code": 0.4, "math": 0.8})
    with pytest.raises(ConfigError, match=f"parameter 'web' is {value:g}.*enqueue"):
        MixtureSpace(NAMES).suggest(trial)


def test_zeros_become_the_prior() -> None:
    space = MixtureSpace(NAMES, prior=[6, 3, 1])
    trial = optuna.trial.FixedTrial({"web": 0.0, "code": 0.0, "math": 0.0})
    assert space.suggest(trial) == pytest.approx({"web": 0.6, "code": 0.3, "math": 0.1})


def test_rounding_of_the_sum_is_mended_without_an_attribute() -> None:
    space = MixtureSpace(NAMES)
    trial = optuna.trial.FixedTrial({"web": 0.5 + 4e-10, "code": 0.3, "math": 0.2})
    weights = space.suggest(trial)
    assert abs(sum(weights.values()) - 1.0) <= 1e-12
    assert trial.user_attrs == {}
    np.testing.assert_array_equal(space.weights(trial), list(weights.values()))


def test_pinned_weights_are_single_distributions() -> None:
    space = constrained().pin({"code": 0.3})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        trial = study.ask()
        assert space.suggest(trial)["code"] == 0.3
        assert trial.distributions["code"].single()
        study.tell(trial, 0.0)


def test_distributions_follow_the_bounds() -> None:
    assert constrained(name="late").distributions() == {
        "late/web": FloatDistribution(0.1, 1.0),
        "late/code": FloatDistribution(0.0, 0.5),
        "late/math": FloatDistribution(0.0, 1.0),
    }


def test_two_named_mixtures_live_in_one_trial() -> None:
    early, late = MixtureSpace(NAMES, name="early"), constrained(name="late")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    first, second = early.suggest(trial), late.suggest(trial)
    assert set(trial.params) == {*early.param_names, *late.param_names}
    assert trial.user_attrs == {f"{KEY}/early": first, f"{KEY}/late": second}
    assert (early.weights_key, late.weights_key) == (f"{KEY}/early", f"{KEY}/late")
    np.testing.assert_array_equal(early.weights(trial), list(first.values()))
    np.testing.assert_array_equal(late.weights(trial), list(second.values()))


class TestReading:
    def frozen(self, params: dict[str, float], **attrs: Any) -> optuna.trial.FrozenTrial:
        """A finished trial; the keyword ``weights`` is its attribute."""
        return optuna.trial.create_trial(
            params=params,
            distributions={name: FloatDistribution(0.0, 1.0) for name in params},
            user_attrs={KEY: attrs["weights"]} if attrs else {},
            value=0.0,
        )

    def test_missing_parameters_are_not_guessed(self) -> None:
        assert MixtureSpace(NAMES).weights(self.frozen({"web": 0.5, "code": 0.5})) is None

    def test_the_attribute_comes_first(self) -> None:
        trial = self.frozen(
            {"web": 0.9, "code": 0.9, "math": 0.9},
            weights={"web": 0.5, "code": 0.25, "math": 0.25},
        )
        np.testing.assert_array_equal(MixtureSpace(NAMES).weights(trial), [0.5, 0.25, 0.25])

    @pytest.mark.parametrize(
        "written",
        [
            {"web": 0.5, "code": 0.5},
            {"web": 0.5, "code": 0.25, "math": 0.15, "law": 0.1},
            {"web": "half", "code": 0.25, "math": 0.25},
            [0.5, 0.25, 0.25],
        ],
        ids=["component missing", "component unknown", "no number", "no mapping"],
    )
    def test_attributes_about_other_components_are_not_guessed(self, written: Any) -> None:
        trial = self.frozen({"web": 0.5, "code": 0.25, "math": 0.25}, weights=written)
        assert MixtureSpace(NAMES).weights(trial) is None

    def test_unknown_components_without_weight_do_no_harm(self) -> None:
        written = {"web": 0.5, "code": 0.25, "math": 0.25, "law": 0.0}
        trial = self.frozen({}, weights=written)
        np.testing.assert_array_equal(MixtureSpace(NAMES).weights(trial), [0.5, 0.25, 0.25])

    def test_mixtures_of_a_wider_space_are_read_as_they_were(self) -> None:
        trial = self.frozen({"web": 0.0, "code": 0.9, "math": 0.1})
        np.testing.assert_array_equal(constrained().weights(trial), [0.0, 0.9, 0.1])

    def test_a_trial_whose_attribute_is_not_written_yet_reads_the_same(self) -> None:
        space = constrained()
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trial = study.ask()
        weights = space.suggest(trial)
        raw = self.frozen(trial.params)
        assert KEY in trial.user_attrs and KEY not in raw.user_attrs
        np.testing.assert_array_equal(space.weights(raw), list(weights.values()))


def test_the_published_space_is_suggested_within_its_caps() -> None:
    space = paper_space()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    weights = np.array([list(space.suggest(study.ask()).values()) for _ in range(30)])
    assert_allowed(space, weights)


WRONG_WEIGHTS: list[tuple[Any, str]] = [
    ({"web": 0.5, "code": 0.5}, "weights lack 'math'; give 0"),
    ({"web": 0.5, "code": 0.3, "maths": 0.2}, "'maths'.*did you mean 'math'"),
    ({"web": 0.5, "code": 0.3, "math": None}, "lack 'math'"),
    ([0.5, 0.5], "3 values are needed, got 2"),
    (0.5, "a mapping or a list"),
    ({"web": 1.2, "code": -0.2, "math": 0.0}, "weight of 'code' must be at least 0, got -0.2"),
    ({"web": float("nan"), "code": 0.5, "math": 0.5}, "weight of 'web' must be finite, got nan"),
    ({"web": float("inf"), "code": 0.5, "math": 0.5}, "weight of 'web' must be finite, got inf"),
    ({"web": "0.5", "code": 0.3, "math": 0.2}, "weight of 'web' must be a number"),
    ({"web": 0.5, "code": 0.3, "math": 0.1}, "sum to 0.9; they must sum to 1"),
    ({"web": 50, "code": 30, "math": 20}, "sum to 100"),
]


class TestEnqueue:
    @pytest.mark.parametrize(
        "weights",
        [
            {"math": 0.2, "web": 0.5, "code": 0.3},
            [0.5, 0.3, 0.2],
            np.array([0.5, 0.3, 0.2]),
            {"web": 0.5000001, "code": 0.3, "math": 0.2},
            [0.5, 0.3, 1 - 0.5 - 0.3],
        ],
        ids=["mapping", "list", "array", "rounded", "computed"],
    )
    def test_queued_mixtures_are_evaluated_as_they_are(self, weights: Any) -> None:
        space = constrained(name="late")
        study = optuna.create_study(sampler=DemixSampler(space, seed=0))
        space.enqueue(study, weights, user_attrs={"baseline": "hand"})
        trial = study.ask()
        suggested = space.suggest(trial)
        assert suggested == pytest.approx({"web": 0.5, "code": 0.3, "math": 0.2}, abs=1e-6)
        assert abs(sum(suggested.values()) - 1.0) <= 1e-12
        assert trial.params == {f"late/{name}": suggested[name] for name in NAMES}
        assert trial.user_attrs == {"baseline": "hand"}

    def test_weights_that_sum_to_one_keep_every_bit(self) -> None:
        space = paper_space(min_weight=0.02)
        study = optuna.create_study(sampler=DemixSampler(space, seed=0))
        mixtures = space.sample(5, np.random.default_rng(0))
        for w in mixtures:
            space.enqueue(study, w)
        for w in mixtures:
            np.testing.assert_array_equal(list(space.suggest(study.ask()).values()), w)

    def test_zeros_are_weights_under_a_minimum(self) -> None:
        space = MixtureSpace(NAMES, min_weight=0.1)
        study = optuna.create_study(sampler=DemixSampler(space, seed=0))
        space.enqueue(study, {"web": 0.9, "code": 0.1, "math": 0.0})
        assert space.suggest(study.ask()) == {"web": 0.9, "code": 0.1, "math": 0.0}

    def test_rounding_of_bounds_is_mended(self) -> None:
        space = MixtureSpace(NAMES, upper={"web": 1 / 3}, min_weight=1 / 3)
        study = optuna.create_study()
        space.enqueue(study, [0.333333, 0.333333, 0.333333])
        trial = study.ask()
        assert list(space.suggest(trial).values()) == pytest.approx([1 / 3] * 3, abs=1e-15)
        assert trial.user_attrs == {}

    def test_other_parameters_are_queued_with_them(self) -> None:
        early, late = MixtureSpace(NAMES, name="early"), MixtureSpace(NAMES, name="late")
        study = optuna.create_study(sampler=DemixSampler([early, late], seed=0))
        others = dict(zip(late.param_names, [0.1, 0.2, 0.7], strict=True))
        early.enqueue(study, [0.5, 0.3, 0.2], params={**others, "lr": 1e-3})
        trial = study.ask()
        assert list(early.suggest(trial).values()) == [0.5, 0.3, 0.2]
        assert list(late.suggest(trial).values()) == [0.1, 0.2, 0.7]
        assert trial.suggest_float("lr", 1e-4, 1e-2, log=True) == 1e-3
        with pytest.raises(ConfigError, match="'early/web', which is one of the weights"):
            early.enqueue(study, [0.5, 0.3, 0.2], params={"early/web": 0.5})

    def test_the_same_mixture_is_queued_once_if_asked(self) -> None:
        space = MixtureSpace(NAMES)
        study = optuna.create_study()
        for _ in range(2):
            space.enqueue(study, [0.5, 0.3, 0.2], skip_if_exists=True)
        assert len(study.trials) == 1
        space.enqueue(study, [0.5, 0.3, 0.2])
        assert len(study.trials) == 2

    @pytest.mark.parametrize(("weights", "words"), WRONG_WEIGHTS)
    def test_what_is_no_mixture_is_refused(self, weights: Any, words: str) -> None:
        study = optuna.create_study()
        with pytest.raises(ConfigError, match=words):
            MixtureSpace(NAMES).enqueue(study, weights)
        assert not study.trials

    def test_mixtures_outside_the_constraints_are_refused_by_name(self) -> None:
        study = optuna.create_study()
        with pytest.raises(ConstraintError) as caught:
            constrained().enqueue(study, {"web": 0.05, "code": 0.6, "math": 0.35})
        message = str(caught.value)
        for part in (
            "lower bound 0.1 of 'web' (0.05 given)",
            "upper bound 0.5 of 'code' (0.6 given)",
            "upper bound 0.7 of group 'stem'",
            "create_trial",
        ):
            assert part in message
        with pytest.raises(ConstraintError, match=r"min_weight 0.1 \('math' 0.05 given\)"):
            MixtureSpace(NAMES, min_weight=0.1).enqueue(study, [0.5, 0.45, 0.05])
        assert not study.trials


class TestCreateTrial:
    def test_results_are_read_back_and_learned_from(self) -> None:
        space = constrained(name="late", min_weight=0.05)
        rate = {"lr": FloatDistribution(1e-4, 1e-2, log=True)}
        study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=0))
        mixtures = space.sample(12, np.random.default_rng(0))
        joint = JointSpace([space], rate)
        for w in mixtures:
            trial = space.create_trial(
                w, w[1], params={"lr": 1e-3}, distributions=rate, user_attrs={"from": "log"}
            )
            study.add_trial(trial)
            row = joint.encode(trial)
            assert row is not None
            np.testing.assert_array_equal(row[:3], w)
        assert study.best_value == mixtures[:, 1].max()
        assert study.trials[0].user_attrs == {"from": "log"}
        assert study.trials[0].distributions == {**space.distributions(), **rate}

        def objective(trial: optuna.Trial) -> float:
            trial.suggest_float("lr", 1e-4, 1e-2, log=True)
            return space.suggest(trial)["code"]

        study.optimize(objective, n_trials=3)
        new = [trial.values[0] for trial in study.trials[12:]]
        assert np.mean(new) > np.mean(mixtures[:, 1])

    def test_samplers_that_want_common_distributions_see_them(self) -> None:
        space = constrained()
        study = optuna.create_study()
        study.add_trial(space.create_trial([0.5, 0.3, 0.2], 1.0))
        study.add_trial(space.create_trial([0.0, 0.8, 0.2], 2.0))
        assert optuna.search_space.intersection_search_space(study.trials) == space.distributions()

    @pytest.mark.parametrize(
        ("weights", "has_attribute"),
        [
            ([0.0, 0.8, 0.2], True),
            ([0.2, 0.4, 0.4], False),
        ],
        ids=["outside the bounds", "outside the group"],
    )
    def test_results_outside_the_constraints_are_kept_as_they_are(
        self, weights: list[float], has_attribute: bool
    ) -> None:
        space = constrained()
        trial = space.create_trial(weights, 0.5)
        assert not space.contains(weights)
        np.testing.assert_array_equal(space.weights(trial), weights)
        assert (space.weights_key in trial.user_attrs) == has_attribute
        np.testing.assert_array_equal(JointSpace([space], {}).encode(trial), weights)

    def test_small_weights_are_evidence_too(self) -> None:
        space = MixtureSpace(NAMES, min_weight=0.1)
        for w in ([0.96, 0.04, 0.0], [0.9, 0.1, 0.0]):
            np.testing.assert_array_equal(space.weights(space.create_trial(w, 1.0)), w)

    def test_several_values_failures_and_constraints(self) -> None:
        space = MixtureSpace(NAMES)
        trial = space.create_trial([0.5, 0.3, 0.2], np.array([1.0, 2.0]), constraints={"c": 0.5})
        assert trial.values == [1.0, 2.0] and trial.constraints == {"c": 0.5}
        assert space.create_trial([0.5, 0.3, 0.2], float("inf")).value == float("inf")
        failed = space.create_trial([0.5, 0.3, 0.2], state=optuna.trial.TrialState.FAIL)
        assert failed.values is None and failed.state == optuna.trial.TrialState.FAIL

    def test_two_mixtures_in_one_trial(self) -> None:
        early, late = MixtureSpace(NAMES, name="early"), MixtureSpace(NAMES, name="late")
        trial = early.create_trial(
            [0.5, 0.3, 0.2],
            1.0,
            params=dict(zip(late.param_names, [0.1, 0.2, 0.7], strict=True)),
            distributions=late.distributions(),
        )
        row = JointSpace([early, late], {}).encode(trial)
        np.testing.assert_array_equal(row, [0.5, 0.3, 0.2, 0.1, 0.2, 0.7])

    @pytest.mark.parametrize(("weights", "words"), WRONG_WEIGHTS)
    def test_what_is_no_mixture_is_refused(self, weights: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            MixtureSpace(NAMES).create_trial(weights, 1.0)

    @pytest.mark.parametrize(
        ("values", "options", "words"),
        [
            (float("nan"), {}, "NaN is no result.*FAIL"),
            ([1.0, float("nan")], {}, "NaN is no result"),
            ("best", {}, "number or a list of numbers"),
            (None, {}, "values should be set"),
            (1.0, {"params": {"lr": 1e-3}}, "'lr' must be in params and in distributions"),
            (1.0, {"distributions": {"lr": FloatDistribution(0, 1)}}, "'lr' must be in params"),
            (1.0, {"params": {"web": 0.5}}, "'web', which is one of the weights"),
            (1.0, {"params": {"lr": 2}, "distributions": {"lr": FloatDistribution(0, 1)}}, "lr"),
        ],
    )
    def test_results_that_are_none_are_refused(
        self, values: Any, options: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            MixtureSpace(NAMES).create_trial([0.5, 0.3, 0.2], values, **options)
