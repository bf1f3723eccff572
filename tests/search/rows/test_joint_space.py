"""Fixed values: what is refused by name, and what is kept."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import PartialFixedSampler

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.search.rows.joint_space import JointSpace

SPACE = MixtureSpace(["web", "code", "math"])
OTHERS = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "method": CategoricalDistribution(["linear", "ties"]),
}
JOINT = JointSpace([SPACE], OTHERS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("web", None, "parameter 'web' is fixed to None; give it a finite number"),
        ("web", "0.5", "parameter 'web' is fixed to '0.5'"),
        ("web", True, "parameter 'web' is fixed to True"),
        ("web", float("nan"), "parameter 'web' is fixed to nan"),
        ("web", [0.5], r"parameter 'web' is fixed to \[0.5\]"),
        ("rate", None, "parameter 'rate' is fixed to None"),
        ("rate", float("inf"), "parameter 'rate' is fixed to inf"),
        ("method", "slerp", r"parameter 'method' is fixed to 'slerp', .* \['linear', 'ties'\]"),
    ],
)
def test_values_that_a_parameter_cannot_have_are_refused_by_name(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        JOINT.pin({name: value})


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_weights_outside_the_simplex_leave_no_mixture(weight: float) -> None:
    with pytest.raises(ConstraintError, match=f"'web' is fixed to {weight:g}"):
        JOINT.pin({"web": weight})


@pytest.mark.parametrize("value", [None, "half", False])
def test_a_wrapper_that_fixes_no_number_is_refused_by_name(value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = PartialFixedSampler({"web": value}, DemixSampler(SPACE, seed=0))
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ConfigError, match="parameter 'web' is fixed to"):
        SPACE.suggest(study.ask())


def test_numbers_of_every_kind_are_taken() -> None:
    for weight in (0, 1, np.float32(0.5), np.int64(1)):
        assert JOINT.pin({"web": weight}).spaces[0].lower[0] == float(weight)


def test_spaces_with_pinned_weights_are_made_once() -> None:
    first = JOINT.pin({"web": 0.25, "rate": 0.01})
    assert JOINT.pin({"rate": 0.02, "web": 0.25}) is first
    assert JOINT.pin({"web": 0.5}) is not first
    for i in range(100):
        JOINT.pin({"code": i / 100})
    assert len(JOINT._pinned) <= 16


# Traces ------------------------------------------------------------------------------------------


def test_weights_that_rounding_has_left_are_proposed_as_0() -> None:
    joint = JointSpace([SPACE], {})
    params = joint.decode(np.array([0.6, 3e-17, 0.4 - 3e-17]))
    assert params["code"] == 0.0 and sum(params.values()) == pytest.approx(1.0, abs=1e-13)
    params = joint.decode(np.array([0.6 - 8e-10, 8e-10, 0.4]))
    assert params == {"web": pytest.approx(0.6, abs=1e-15), "code": 0.0, "math": 0.4}
    small = np.array([0.6, 2e-9, 0.4 - 2e-9])
    assert joint.decode(small)["code"] == 2e-9
    floored = MixtureSpace(["web", "code"], lower={"code": 1e-10})
    assert JointSpace([floored], {}).decode(np.array([1.0 - 1e-10, 1e-10]))["code"] == 1e-10


def test_no_constraint_is_missed_for_a_0() -> None:
    """Nine traces of which the sum belongs to the one group that must not lose it."""
    names = ["web", *(f"c{i}" for i in range(9))]
    group = {"name": "rest", "members": names[1:], "lower": 8e-9}
    space = MixtureSpace(names, groups=[group])
    weights = np.array([1.0 - 8.1e-9, *[9e-10] * 9])
    params = JointSpace([space], {}).decode(weights)
    assert list(params.values()) == weights.tolist()


# Starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "part"), [(5, 1.0), (30, 0.5)], ids=["few", "many sources"])
def test_first_mixtures_of_many_sources_keep_to_the_prior(k: int, part: float) -> None:
    joint = JointSpace([MixtureSpace([f"c{i}" for i in range(k)], upper=0.4)], {})
    anywhere = joint.sample(50, np.random.default_rng(0))
    start = joint.sample_for_start(50, np.random.default_rng(0))
    away = [np.abs(X - joint.center()).sum(axis=1) for X in (start, anywhere)]
    np.testing.assert_allclose(away[0], part * away[1], rtol=1e-9)
