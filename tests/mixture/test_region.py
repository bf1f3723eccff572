from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linprog

from optuna_demix.errors import ConfigError
from optuna_demix.mixture import MixtureSpace
from tests.mixture.spaces import assert_allowed, full_space, spaces


@settings(max_examples=30)
@given(spaces())
def test_prior_and_center_are_allowed(space: MixtureSpace) -> None:
    assert_allowed(space, np.stack([space.prior, space.center]))
    assert (space.center >= space.min_weights() - 1e-9).all()


@settings(max_examples=25)
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
    for constraint in space.constraints:
        names = space.components if constraint.of == "weights" else space.datasets
        row = np.array([constraint.coefficients.get(name, 0.0) for name in names])
        row = row if constraint.of == "weights" else space.composition @ row
        ends = (constraint.upper, constraint.lower)
        for sign, bound in zip((1.0, -1.0), ends, strict=True):
            if bound is not None:
                rows.append(sign * row[None])
                bounds.append(np.array([sign * bound]))
    for i in range(len(space)):
        for sign, found in ((1.0, space.min_weights()), (-1.0, space.max_weights())):
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
            assert found[i] == pytest.approx(sign * result.fun, abs=1e-5)


def test_contains() -> None:
    space = full_space()
    inside = np.array([0.5, 0.4, 0.1])
    assert space.contains(inside) is True
    outside = [
        [0.5, 0.4, 0.1 + 1e-6],  # sums to more than 1
        [0.95, 0.05, 0.0],  # above web's bound
        [0.6, 0.04, 0.36],  # below code's bound
        [0.3, 0.4, 0.3],  # math's share 0.15 above its cap 0.12
        [0.7, 0.3, 0.0],  # stem's shares 0.15 below their group's 0.2
        [1.2, -0.2, 0.0],
        [np.nan, 0.5, 0.5],
        [np.inf, 0.5, 0.5],
    ]
    answers = space.contains([inside, *outside])
    assert isinstance(answers, np.ndarray)
    assert answers.tolist() == [True] + [False] * len(outside)
    assert space.contains(inside + [0, 0, 1e-6], atol=1e-5) is True
    assert MixtureSpace(["a", "b"]).contains([1.5, -0.5]) is False


def test_broken_constraints_are_told_in_words() -> None:
    space = full_space()
    assert space.broken([0.5, 0.4, 0.1]) == []
    assert space.broken([0.95, 0.05, 0.0]) == [
        "upper bound 0.9 of 'web' (0.95 given)",
        "lower bound 0.2 of group 'stem' (shares of 'code' + 'math') (0.025 given)",
    ]
    small = MixtureSpace(["a", "b", "c"], min_weight=0.1)
    assert small.broken([0.05, 0.02, 0.93]) == ["min_weight 0.1 ('a' 0.05, 'b' 0.02 given)"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, rng: s.project([0.5, 0.5]), r"shape \(3,\) or \(n, 3\), got \(2,\)"),
        (lambda s, rng: s.project([np.nan, 0.5, 0.5]), "finite, got nan for 'web'"),
        (lambda s, rng: s.contains(["a", "b", "c"]), "must be numbers"),
        (lambda s, rng: s.data_shares([0.5]), "shape"),
        (lambda s, rng: s.sample(-1, rng), "must not be negative, got -1"),
        (lambda s, rng: s.perturb([0.5, 0.4, 0.1], -0.1, rng), "scale.*-0.1"),
        (lambda s, rng: s.perturb([0.5, 0.4, 0.1], np.nan, rng), "scale.*nan"),
        (lambda s, rng: s.blend([[0.5, 0.4, 0.1]], [[0.5, 0.4, 0.1]], [1.5], rng), "0, 1.*1.5"),
        (lambda s, rng: s.blend([[0.5, 0.4, 0.1]], [[0.5, 0.4, 0.1]], [np.nan], rng), "nan"),
    ],
)
def test_unusable_points_are_refused(call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call(full_space(), np.random.default_rng(0))
