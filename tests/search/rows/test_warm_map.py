"""Mixtures of earlier sources in today's."""

from __future__ import annotations

from typing import Any

import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.search.rows.warm_map import WarmMap

NEW = ["cc", "news", "forums", "code"]
WEB = {"web": {"news": 0.25, "cc": 0.75}}
BOTH = {"a": {"cc": 1}, "b": {"cc": 1}}


@pytest.mark.parametrize(
    ("given", "old", "weights", "is_exact"),
    [
        ({}, {"cc": 0.4, "code": 0.6}, [0.4, 0, 0, 0.6], True),
        ({"web": {"cc": 1}}, {"web": 0.4, "code": 0.6}, [0.4, 0, 0, 0.6], True),
        (
            WEB,
            {"web": 0.4, "code": 0.6},
            [0.3, 0.1, 0, 0.6],
            False,
        ),
        (WEB, {"web": 0.0, "code": 1.0}, [0, 0, 0, 1.0], True),
        (BOTH, {"a": 0.4, "b": 0.6}, [1.0, 0, 0, 0], False),
        (
            BOTH,
            {"a": 0.4, "b": 0, "code": 0.6},
            [0.4, 0, 0, 0.6],
            True,
        ),
        ({"web": {"cc": 1}}, {"web": 0.4, "cc": 0.6}, [1.0, 0, 0, 0], False),
        ({"junk": {}}, {"junk": 0.2, "code": 0.8}, [0, 0, 0, 1.0], False),
    ],
    ids=[
        "as it was",
        "renamed",
        "split",
        "split, without weight",
        "merged",
        "merged, one of them",
        "renamed into one that was there",
        "removed",
    ],
)
def test_a_mixture_is_told_in_todays_components(
    given: Any, old: dict[str, float], weights: list[float], is_exact: bool
) -> None:
    placed = WarmMap(given).place(old, NEW)
    assert placed is not None
    assert placed.weights == pytest.approx(weights)
    assert placed.is_exact == is_exact


def test_a_mixture_of_mostly_removed_or_unknown_components_tells_nothing() -> None:
    assert WarmMap({"junk": {}}).place({"junk": 0.6, "code": 0.4}, NEW) is None
    assert WarmMap({}).place({"other": 0.1, "code": 0.9}, NEW) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "warm_map must be a mapping"),
        ({"web": "cc"}, "'web' must map to"),
        ({"web": {"cc": 0.5}}, "the shares sum to 0.5; they must sum to 1"),
        ({"web": {"cc": 1.5, "news": -0.5}}, "between 0 and 1"),
        ({"web": {"cc": "x"}}, "shares must be numbers"),
    ],
)
def test_mistakes_are_told(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        WarmMap(given)


def test_unknown_components_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'forums'"):
        WarmMap({"web": {"forum": 1}}).check(NEW)
