from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import assert_allowed, paper_space

NAMES = ["web", "code", "math"]
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
    # The normalised point breaks a bound here: the nearest allowed one is taken.
    study.enqueue_trial({"web": 0.1, "code": 0.5, "math": 0.0})
    assert space.suggest(study.ask()) == pytest.approx(
        dict(zip(NAMES, space.project([1 / 6, 5 / 6, 0]), strict=True))
    )


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
