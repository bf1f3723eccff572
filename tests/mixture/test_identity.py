from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from optuna_demix.mixture import Group, MixtureSpace
from tests.mixture.spaces import HALF_WEB, NAMES, full_space, spaces


@settings(max_examples=25)
@given(spaces(largest=12))
def test_pickled_spaces_are_equal_and_draw_alike(space: MixtureSpace) -> None:
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
def test_every_difference_shows(change: dict[str, Any]) -> None:
    space, other = full_space(), full_space(**change)
    assert space == full_space()
    assert space != other
    assert space.fingerprint() != other.fingerprint()


def test_other_components_differ() -> None:
    assert MixtureSpace(["a", "b"]) != MixtureSpace(["b", "a"])
    assert MixtureSpace(["a", "b"]) != "MixtureSpace"


def test_the_way_of_writing_does_not_matter() -> None:
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


def test_fingerprints_are_json_and_copies() -> None:
    space = full_space()
    fingerprint = space.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["caps"] == {"math": 0.12}
    fingerprint["prior"][0] = 9.0
    assert space.fingerprint()["prior"] == [0.6, 0.3, 0.1]


def test_repr_tells_what_constrains() -> None:
    text = repr(full_space())
    for part in ("'web', 'code', 'math'", "lower bound 0.05 of 'code'", "'late'", "0.12"):
        assert part in text
    assert repr(MixtureSpace(["a", "b"])) == "MixtureSpace(['a', 'b'], prior=[0.5, 0.5])"
