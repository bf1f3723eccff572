"""Proposals from a surrogate: repeats of a doubtful best, and one trade-off a trial."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.search.proposals import continuous

SPACE = MixtureSpace(["web", "code", "math"])
TARGET = np.array([0.5, 0.3, 0.2])


def add_random(study: optuna.Study, n: int, *, lucky: int | None = None) -> None:
    """Trials at random mixtures, one of them with a score that is luck."""
    n_objectives = len(study.directions)
    for i, w in enumerate(SPACE.sample(n, np.random.default_rng(0))):
        value = -float(np.sum((w - TARGET) ** 2)) + (5.0 if i == lucky else 0.0)
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(SPACE.components, w.tolist(), strict=True)),
                distributions=SPACE.distributions(),
                values=[value] * n_objectives,
            )
        )


@pytest.mark.parametrize(("composite", "fate"), [("rank", "scored"), ("pareto", "failed")])
def test_a_lucky_best_is_evaluated_three_times_also_between_two_fits(
    composite: str, fate: str
) -> None:
    """With 115 trials a fit serves the next 7 asks: it does not show the repeats yet."""
    sampler = DemixSampler(SPACE, seed=0, reevaluate=True, composite=composite)
    study = optuna.create_study(
        directions=["maximize"] * (2 if composite == "pareto" else 1), sampler=sampler
    )
    add_random(study, 115, lucky=9)
    lucky = study.trials[9].params

    def objective(trial: optuna.Trial) -> list[float]:
        w = np.array(list(SPACE.suggest(trial).values()))
        if fate == "failed" and trial.params == pytest.approx(lucky):
            raise RuntimeError
        return [-float(np.sum((w - TARGET) ** 2))] * len(study.directions)

    study.optimize(objective, n_trials=6, catch=(RuntimeError,))
    repeats = [t for t in study.trials if t.params == pytest.approx(lucky, abs=1e-9)]
    assert len(repeats) == 3


def test_a_trial_has_one_trade_off(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counted(n_objectives: int, rng: np.random.Generator) -> np.ndarray:
        drawn.append(rng.dirichlet(np.ones(n_objectives)))
        return drawn[-1]

    monkeypatch.setattr(continuous, "pareto_weights", counted)
    sampler = DemixSampler(SPACE, seed=0, reevaluate=True, composite="pareto")
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    add_random(study, 20)
    study.ask(SPACE.distributions())
    assert len(drawn) == 1
    study.ask(SPACE.distributions())
    assert len(drawn) == 2 and not np.allclose(*drawn)
