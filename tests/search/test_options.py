from __future__ import annotations

from typing import Any

import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.errors import ConfigError
from optuna_demix.search import SearchOptions

STUDY = optuna.create_study()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "weekly"}, "schedule must be 'continuous' or 'demix', got 'weekly'"),
        ({"surrogate": "forest"}, "surrogate kind 'forest' is unknown"),
        ({"composite": "max"}, "composite 'max' is unknown"),
        ({"composite": {"code": 1.0}}, "composite must be .* got dict"),
        ({"composite": 1.0}, "composite must be .* got float"),
        ({"composite": [1.0, -1.0]}, "must be finite, not negative and not all 0"),
        ({"composite": [0.0, 0.0]}, "must be finite, not negative and not all 0"),
        ({"composite": []}, "must be finite, not negative and not all 0"),
        ({"composite": [1.0, float("nan")]}, "must be finite, not negative and not all 0"),
        ({"kl": -1.0}, "kl must be a finite number from 0 on, got -1.0"),
        ({"kl": float("inf")}, "kl must be a finite number"),
        ({"kl": "much"}, "kl must be a finite number"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        ({"seed": 1.5}, "seed must be a whole number from 0 to"),
        ({"seed": 2**32}, "seed must be a whole number from 0 to"),
        ({"warm_start": STUDY}, "warm_start must be a sequence of earlier studies.* got Study"),
        ({"warm_start": ["old"]}, "warm_start must be a sequence of earlier studies"),
        ({"warm_start": "old"}, "warm_start must be a sequence of earlier studies"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_told_when_they_are_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        SearchOptions(**change)
    assert "\n" not in str(raised.value)


def test_what_is_given_as_a_list_stays_as_it_was() -> None:
    weights, earlier = [1.0, 2.0], [STUDY]
    options = SearchOptions(composite=weights, warm_start=earlier)
    weights.append(3.0)
    earlier.clear()
    assert options.composite == (1.0, 2.0) and options.warm_start == (STUDY,)


def test_the_published_schedule_has_the_published_surrogate() -> None:
    assert SearchOptions().kind == "auto"
    assert SearchOptions(schedule="demix").kind == "lightgbm"
    assert SearchOptions(schedule="demix", surrogate="auto").kind == "auto"


def test_a_sampler_refuses_what_is_no_mixture() -> None:
    from optuna_demix import DemixSampler

    for space in (None, "web", [], [MixtureSpace(["a", "b"]), "c"]):
        with pytest.raises(ConfigError, match="space must be a MixtureSpace or a sequence"):
            DemixSampler(space)  # type: ignore[arg-type]
