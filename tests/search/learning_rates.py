"""A mixture and a learning rate searched together: steep where the rate is large."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace

SPACE = MixtureSpace(
    ["web", "code", "math"],
    tokens={"web": 8e9, "code": 2e9, "math": 5e8},
    budget=1e10,
    max_epochs=4,
)
# One seed in every run of the tests, all of them with the slow ones.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]


def train_and_score(weights: dict[str, float], learning_rate: float) -> float:
    """That of ``examples/plain_optimize.py``: 0 at best, and down to -4 at the largest rate."""
    distance = (weights["web"] - 0.5) ** 2 + (weights["code"] - 0.35) ** 2
    return -distance - 0.05 * (learning_rate * 1e3 - 1) ** 2


def objective(trial: optuna.Trial) -> float:
    weights = SPACE.suggest(trial)
    return train_and_score(weights, trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True))


def with_learning_rate(
    seed: int,
    *,
    n_trials: int,
    sampler: optuna.samplers.BaseSampler | None = None,
    **kwargs: Any,
) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize", sampler=sampler or DemixSampler(SPACE, seed=seed)
    )
    study.optimize(objective, n_trials=n_trials, **kwargs)
    return study


def best_value(study: optuna.Study) -> float:
    return float(study.best_value)
