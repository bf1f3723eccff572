"""Recommendations of nested mixtures and of runs in phases."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.mixture import Phase
from optuna_demix.search import Recommendation

SETS = ["web", "code", "math"]


def searched(space: MixtureSpace) -> Recommendation:
    def objective(trial: Any) -> float:
        w = space.suggest(trial)
        return -sum((value - 1.0 / len(w)) ** 2 for value in w.values())

    study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=0))
    study.optimize(objective, n_trials=12)
    return recommend(study)


def test_a_run_is_recommended_phase_by_phase() -> None:
    result = searched(
        MixtureSpace.phases(
            [
                Phase("stable", 0.9, MixtureSpace(SETS, prior=[8, 1, 1]), fixed=True),
                Phase("decay", 0.1, MixtureSpace(SETS)),
            ]
        )
    )
    weights = result.mixtures["recommended"].weights[""]
    assert list(weights.phases) == ["stable", "decay"]
    stable, decay = weights.phases.values()
    assert stable.fixed and stable.merge_weights == {}
    assert stable.data_shares == pytest.approx({"web": 0.8, "code": 0.1, "math": 0.1})
    assert decay.merge_weights == pytest.approx(result.merge_weights)
    for name in SETS:
        run = 0.9 * stable.data_shares[name] + 0.1 * decay.data_shares[name]
        assert result.data_shares[name] == pytest.approx(run)
    printed = str(result)
    assert printed.index("stable: 0.9 of the run, fixed") < printed.index("decay: 0.1 of the run")
    assert "whole run" in printed
    plain = json.loads(result.to_json())["mixtures"]["recommended"]
    assert plain["phases"]["stable"]["share"] == 0.9
    assert plain["phases"]["decay"]["data_shares"] == decay.data_shares


def test_topics_are_recommended_beside_their_sources() -> None:
    result = searched(MixtureSpace.nested({"text": ["web", "books"], "stem": ["math"]}))
    weights = result.mixtures["recommended"].weights[""]
    assert weights.topics["stem"] == pytest.approx(weights.merge_weights["math"])
    assert sum(weights.topics.values()) == pytest.approx(1.0)
    assert "topic" in str(result)
    assert json.loads(result.to_json())["mixtures"]["prior"]["topics"].keys() == {"text", "stem"}


def test_plain_mixtures_are_told_as_before() -> None:
    result = searched(MixtureSpace(SETS))
    assert "topic" not in str(result) and "run" not in str(result)
    assert not {"topics", "phases"} & result.mixtures["recommended"].to_dict().keys()
