"""Final scores of trials that a pruner stopped, from what they reported."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend
from optuna_demix.search.rows.reports import final_scores

NAN = float("nan")
SPACE = MixtureSpace(["web", "code", "math", "docs"])
OPTIMUM = np.array([0.1, 0.2, 0.6, 0.1])


def test_the_last_report_is_compared_with_those_of_the_same_step() -> None:
    # Scores double from step 0 to the end; whoever was stopped at step 0 would have doubled too.
    reports = [{0: x, 1: 1.5 * x} for x in (1.0, 2.0, 3.0, 4.0, 5.0)] + [{0: 2.5}, {}]
    known = np.array([2.0, 4.0, 6.0, 8.0, 10.0, NAN, NAN])
    scores, errors = final_scores(reports, known)
    np.testing.assert_allclose(scores[:6], [2.0, 4.0, 6.0, 8.0, 10.0, 5.0])
    np.testing.assert_allclose(errors[:6], 0.0, atol=1e-9)
    assert np.isnan(scores[6])


def test_standard_errors_are_those_of_the_estimates() -> None:
    rng = np.random.default_rng(0)
    early = rng.normal(size=3000)
    final = 2.0 * early + rng.normal(scale=0.5, size=3000)
    known = np.where(np.arange(3000) < 40, final, NAN)
    scores, errors = final_scores([{3: value} for value in early], known)
    assert np.all(errors[:40] == 0.0)
    z = (scores[40:] - final[40:]) / errors[40:]
    assert np.std(z) == pytest.approx(1.0, abs=0.25)


def test_early_reports_that_say_nothing_of_the_end_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    early, final = rng.normal(size=60), rng.normal(size=60)
    known = np.where(np.arange(60) < 30, final, NAN)
    scores, errors = final_scores([{0: value} for value in early], known)
    assert np.std(scores[30:]) < 0.5 * np.std(final)
    assert errors[30:].min() > 0.7 * np.std(final[:30])


def test_trials_that_were_stopped_later_help_those_that_were_stopped_earlier() -> None:
    reports = [{0: x, 1: x + 1.0} for x in (0.0, 1.0, 2.0, 3.0)] + [{0: -1.0}]
    known = np.array([NAN, NAN, NAN, 13.0, NAN])  # one alone went to the end: 9 above step 1
    scores, errors = final_scores(reports, known)
    np.testing.assert_allclose(scores, [10.0, 11.0, 12.0, 13.0, 9.0])
    assert errors[4] > 0.0 and errors[0] > 0.0  # by how much they rise is known of one trial only


def test_without_a_complete_trial_nothing_is_known() -> None:
    scores, errors = final_scores([{0: 1.0}, {0: 2.0}], np.array([NAN, NAN]))
    assert np.isnan(scores).all() and np.all(errors == 0.0)


@pytest.fixture(scope="module")
def pruned() -> optuna.Study:
    """A search most of whose trials a pruner stopped: few others are left to learn from."""

    def objective(trial: optuna.Trial) -> float:
        w = np.array(list(SPACE.suggest(trial).values()))
        final = -float(np.sum((w - OPTIMUM) ** 2))
        for step in range(1, 11):
            value = final * (step / 10) ** 0.5 - 0.3 * (1 - step / 10)
            trial.report(value, 100 * step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=100, reduction_factor=3)
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0), pruner=pruner
    )
    study.optimize(objective, n_trials=27)
    return study


def test_a_search_learns_from_what_a_pruner_stopped(pruned: optuna.Study) -> None:
    complete = pruned.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(complete) < 10
    found = recommend(pruned)
    assert found.n_trials == 27
    w = np.array(list(found.merge_weights.values()))
    assert 0.5 * np.abs(w - OPTIMUM).sum() < 0.06


def test_what_a_pruner_stopped_says_the_same_of_losses(pruned: optuna.Study) -> None:
    told = []
    for direction, sign in (("maximize", 1.0), ("minimize", -1.0)):
        study = optuna.create_study(direction=direction, sampler=DemixSampler(SPACE, seed=0))
        for trial in pruned.get_trials():
            trial.values = [sign * value for value in trial.values]
            trial.intermediate_values = {k: sign * v for k, v in trial.intermediate_values.items()}
            study.add_trial(trial)
        told.append((recommend(study).merge_weights, study.ask(SPACE.distributions()).params))
    assert told[0] == told[1]
