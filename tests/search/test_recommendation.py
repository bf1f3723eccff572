from __future__ import annotations

import json
import math

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.errors import StudyError
from optuna_demix.search.recommendation import verify

COMPOSITION = {"web": {"web": 1.0}, "code": {"web": 0.5, "code": 0.5}, "math": {"math": 1.0}}
SPACE = MixtureSpace(
    ["web", "code", "math"], composition=COMPOSITION, prior={"web": 0.8, "code": 0.1, "math": 0.1}
)
TARGET = {"web": 0.5, "code": 0.3, "math": 0.2}


def values(weights: dict[str, float]) -> list[float]:
    loss = sum((weights[name] - TARGET[name]) ** 2 for name in TARGET)
    return [-loss, 3 * loss]  # one to maximise, one to minimise, one optimum


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=DemixSampler(SPACE, seed=0)
    )
    study.set_metric_names(["skill", "loss"])
    study.optimize(lambda trial: values(SPACE.suggest(trial)), n_trials=40)
    return study


@pytest.mark.parametrize("schedule", ["continuous", "demix"])
def test_it_finds_the_optimum_of_a_smooth_surface(study: optuna.Study, schedule: str) -> None:
    result = recommend(study, SPACE, schedule=schedule)
    distance = 0.5 * sum(abs(result.merge_weights[n] - TARGET[n]) for n in TARGET)
    assert distance < (0.03 if schedule == "continuous" else 0.35)
    assert math.isclose(sum(result.merge_weights.values()), 1.0, abs_tol=1e-12)


def test_data_shares_are_what_the_components_were_trained_on(study: optuna.Study) -> None:
    result = recommend(study, SPACE)
    w, r = result.merge_weights, result.data_shares
    assert r["web"] == pytest.approx(w["web"] + 0.5 * w["code"])
    assert r["code"] == pytest.approx(0.5 * w["code"])


def test_predictions_keep_the_orientation_of_the_study(study: optuna.Study) -> None:
    prior = recommend(study, SPACE).mixtures["prior"]
    assert prior.capabilities["skill"] == pytest.approx(values(prior.merge_weights)[0], abs=0.02)
    assert prior.capabilities["loss"] == pytest.approx(values(prior.merge_weights)[1], abs=0.06)


def test_verified_scores_are_measured_ones(study: optuna.Study) -> None:
    predicted = recommend(study, SPACE)
    measured = verify(predicted, study, values)
    for mixture in measured.mixtures.values():
        assert list(mixture.capabilities.values()) == values(mixture.merge_weights)
        assert mixture.measured and not mixture.std
    order = ["prior", "uniform", "recommended"]
    composites = [measured.mixtures[name].composite for name in order]
    assert composites == sorted(composites)
    best = study.trials[measured.best_trial]
    assert list(measured.mixtures["best_trial"].capabilities.values()) == best.values


def test_the_table_and_the_json_say_the_same(study: optuna.Study) -> None:
    result = recommend(study, SPACE)
    data = json.loads(result.to_json())
    assert data["mixtures"]["recommended"]["merge_weights"] == result.merge_weights
    for name, weight in result.merge_weights.items():
        assert any(
            line.split()[:2] == [name, f"{weight:.4f}"] for line in str(result).splitlines()
        )
    assert "data share" in str(result) and "predicted" in str(result)


def test_trials_of_any_sampler_will_do() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: values(SPACE.suggest(trial))[0], n_trials=40)
    result = recommend(study, SPACE)
    assert values(result.merge_weights)[0] > study.best_value - 0.01
    assert list(result.mixtures["prior"].capabilities) == ["value"]


def test_a_study_without_trials_is_refused_by_name() -> None:
    study = optuna.create_study(study_name="empty")
    with pytest.raises(StudyError, match="'empty' has 0 finished trials.*web, code, math"):
        recommend(study, SPACE)


def test_the_recommendation_is_repeatable(study: optuna.Study) -> None:
    assert (
        recommend(study, SPACE) == recommend(study, SPACE)
        or np.isnan(list(recommend(study, SPACE).accuracy.values())).any()
    )
