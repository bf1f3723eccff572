"""Searches that start from studies whose sources were others."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.errors import ConfigError
from optuna_demix.search import SearchOptions

OLD = ["web", "code", "math"]
NEW = ["news", "forums", "code", "math"]
SPLIT = {"web": {"news": 0.5, "forums": 0.5}}
BEST = np.array([0.3, 0.1, 0.4, 0.2])


def score(w: np.ndarray) -> float:
    return float(-((np.sqrt(w) - np.sqrt(BEST)) ** 2).sum())


def earlier(n: int = 60, *, sign: float = 1.0) -> optuna.Study:
    """A study of three sources, of which one was split since; wrong if the sign is negative."""
    space = MixtureSpace(OLD)
    study = optuna.create_study(direction="maximize", study_name="old")
    for w in space.sample(n, np.random.default_rng(0)):
        new = np.array([w[0] / 2, w[0] / 2, w[1], w[2]])
        study.add_trial(space.create_trial(w, sign * score(new)))
    return study


def add_two(study: optuna.Study, space: MixtureSpace) -> None:
    """Two trials of its own, fewer than which nothing is recommended from."""
    for w in space.sample(2, np.random.default_rng(1)):
        study.add_trial(space.create_trial(w, -1.0 - w[0]))


def regret(n_trials: int, **options: Any) -> float:
    """True score that the recommended mixture lacks, mean of two seeds."""
    found = []
    for seed in range(2):
        space = MixtureSpace(NEW)
        study = optuna.create_study(
            direction="maximize", sampler=DemixSampler(space, seed=seed, **options)
        )
        study.optimize(
            lambda trial, space=space: score(np.array(list(space.suggest(trial).values()))),
            n_trials=n_trials,
        )
        found.append(-score(np.array(list(recommend(study).merge_weights.values()))))
    return float(np.mean(found))


def test_mapped_trials_help_a_short_search() -> None:
    with_map = regret(6, warm_start=[earlier()], warm_map=SPLIT)
    assert with_map < 0.5 * regret(6)


def test_a_wrong_map_does_not_outvote_new_trials() -> None:
    wrong = regret(14, warm_start=[earlier(100, sign=-1.0)], warm_map=SPLIT)
    assert wrong < 2.0 * regret(14) + 0.005


def test_a_renamed_source_is_the_same_source(caplog: pytest.LogCaptureFixture) -> None:
    space = MixtureSpace(["cc", "code", "math"])
    study = optuna.create_study(
        direction="maximize",
        sampler=DemixSampler(
            space, seed=0, warm_start=[earlier(20)], warm_map={"web": {"cc": 1.0}}
        ),
    )
    add_two(study, space)
    with caplog.at_level(logging.INFO, logger="optuna_demix"):
        result = recommend(study)
    assert result.n_warm == 20
    assert "20 are learned from, and 0 more through warm_map" in caplog.text


def test_it_says_how_many_trials_it_could_use(caplog: pytest.LogCaptureFixture) -> None:
    space = MixtureSpace(["news", "forums", "code"])  # maths is gone, and the map does not say so
    study = optuna.create_study(
        direction="maximize",
        sampler=DemixSampler(space, seed=0, warm_start=[earlier(20)], warm_map=SPLIT),
    )
    add_two(study, space)
    with pytest.warns(UserWarning, match="19 finished trials of study 'old' cannot be used"):
        recommend(study)
    removed = DemixSampler(space, seed=0, warm_start=[earlier(20)], warm_map={**SPLIT, "math": {}})
    study.sampler = removed
    with caplog.at_level(logging.INFO, logger="optuna_demix"), pytest.warns(UserWarning) as told:
        recommend(study)
    assert "more through warm_map" in caplog.text
    assert "cannot be used" in str(told[0].message)  # those that were mostly maths


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"warm_map": {"web": {"cc": 1}}}, "warm_map: 'web'"),
        ({"warm_map": SPLIT, "schedule": "demix"}, "does not go with schedule"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DemixSampler(MixtureSpace(NEW), **options)


def test_it_is_about_one_mixture() -> None:
    spaces = [MixtureSpace(NEW, name="a"), MixtureSpace(NEW, name="b")]
    with pytest.raises(ConfigError, match="about one mixture"):
        DemixSampler(spaces, warm_map=SPLIT)
    assert SearchOptions(warm_map=SPLIT).warm_map == SPLIT
