"""``gather``: what a report shows, read from a study."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.report import gather, write_note
from optuna_demix.report.plots import figures

pytestmark = pytest.mark.xdist_group("report")
FIRST = MixtureSpace(["web", "code", "math"])
SECOND = MixtureSpace(["chat", "code_chat"], name="annealing")


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    """Two mixtures and two other parameters, one of which matters."""
    sampler = DemixSampler([FIRST, SECOND], seed=0)
    study = optuna.create_study(study_name="both", direction="maximize", sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        first, second = FIRST.suggest(trial), SECOND.suggest(trial)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        trial.suggest_categorical("schedule", ["linear", "cosine"])
        missed = (first["web"] - 0.5) ** 2 + (second["chat"] - 0.3) ** 2
        return float(-missed - 0.1 * np.log10(rate / 1e-3) ** 2)

    study.optimize(objective, n_trials=12)
    return study


def test_the_options_are_those_of_the_sampler(study: optuna.Study) -> None:
    data = gather(study)
    assert data.recommendation.to_json() == recommend(study).to_json()
    assert data.space == FIRST
    assert data.weights.shape == (12, 3)
    np.testing.assert_allclose(data.weights.sum(axis=1), 1.0)
    assert data.effects.change.shape == (1, 3)
    assert np.isclose(data.weights_of("recommended").sum(), 1.0)


def test_note_and_figures_hold_all_mixtures_and_parameters(study: optuna.Study) -> None:
    data = gather(study, [FIRST, SECOND])
    note = write_note(data)
    found = data.recommendation
    chat = found.mixtures["recommended"].weights["annealing"].data_shares["chat"]
    assert f"{100 * chat:.1f} %" in note and "| annealing |" in note
    assert f"{found.params['learning_rate']:.4g}" in note
    assert f"| schedule | \u2003{found.params['schedule']} |" in note
    state = "**Converged**" if found.converged else "**Not converged**"
    assert state in note
    assert figures(data)


def test_the_note_shows_the_trade_offs() -> None:
    sampler = DemixSampler(FIRST, seed=0, composite="pareto")
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    study.optimize(lambda trial: tuple(FIRST.suggest(trial).values())[:2], n_trials=10)
    data = gather(study)
    lines = write_note(data).splitlines()
    for mixture in data.recommendation.front:
        assert any(line.startswith(f"| {mixture.in_words()} |") for line in lines)
