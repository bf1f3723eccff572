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


@pytest.mark.parametrize(("k", "part"), [(5, 1.0), (30, 0.5)], ids=["few", "many sources"])
def test_first_mixtures_of_many_sources_keep_to_the_prior(k: int, part: float) -> None:
    joint = JointSpace([MixtureSpace([f"c{i}" for i in range(k)], upper=0.4)], {})
    anywhere = joint.sample(50, np.random.default_rng(0))
    start = joint.sample_for_start(50, np.random.default_rng(0))
    away = [np.abs(X - joint.center()).sum(axis=1) for X in (start, anywhere)]
    np.testing.assert_allclose(away[0], part * away[1], rtol=1e-9)
