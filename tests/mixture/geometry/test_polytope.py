from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings

from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.mixture.geometry import linear
from tests.mixture.spaces import spaces

linprog = scipy.optimize.linprog


def grouped(k: int) -> MixtureSpace:
    """A space of k components whose groups bind many weights together."""
    names = [f"c{i}" for i in range(k)]
    groups = [
        Group("first", tuple(names[: k // 2]), lower=0.2, upper=0.4),
        Group("third", tuple(names[::3]), upper=0.3),
    ]
    return MixtureSpace(names, upper=4 / k, groups=groups)


def test_many_linear_programs_are_solved_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return linprog(*args, **options)

    monkeypatch.setattr("scipy.optimize.linprog", count)
    space = grouped(48)
    space.sample(5, np.random.default_rng(0))
    assert 1 <= len(calls) <= 6


def test_a_failure_of_many_is_mended_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = grouped(12)

    def fail_if_large(cost: Any, **options: Any) -> Any:
        found = linprog(cost, **options)
        if len(cost) > 13:
            found.status, found.x = 4, None
        return found

    monkeypatch.setattr("scipy.optimize.linprog", fail_if_large)
    alone = grouped(12)
    np.testing.assert_allclose(alone.max_weights(), whole.max_weights(), atol=1e-9)
    np.testing.assert_allclose(alone.min_weights(), whole.min_weights(), atol=1e-9)


@settings(max_examples=20)
@given(spaces(largest=20))
def test_vertices_solved_together_are_as_good_as_alone(space: MixtureSpace) -> None:
    polytope = space._polytope
    limits = (polytope.rows, polytope.bounds, polytope.lower, polytope.upper)
    objectives = np.random.default_rng(0).standard_normal((9, len(space)))
    together = linear.maximize(objectives, *limits)
    for objective, point in zip(objectives, together, strict=True):
        alone = linear.maximize(objective[None], *limits)[0]
        assert np.isnan(point).any() == np.isnan(alone).any()
        if not np.isnan(point).any():
            assert objective @ point == pytest.approx(objective @ alone, abs=1e-8)
