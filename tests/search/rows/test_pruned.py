"""Scores on all items from the blocks that a dropped trial was scored on."""

from __future__ import annotations

import functools

import numpy as np
import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optuna_demix import DemixSampler, MixtureObjective, MixtureSpace, recommend
from optuna_demix.attributes import SCORE_PREFIX
from optuna_demix.errors import StudyError
from optuna_demix.search.rows.pruned import full_scores
from optuna_demix.search.terminator import DemixTerminator

from tests.search.racers import Runner  # isort: skip

SPACE = MixtureSpace(["web", "code"])
FEW = st.lists(st.integers(1, 8), min_size=1, max_size=12)


@example([1, 1, 1, 1, 1], 0, 0.0)  # one trial alone has seen the other blocks
@given(FEW, st.integers(0, 2**32 - 1), st.floats(-5, 5))
def test_quality_and_ease_are_told_apart(lengths: list[int], seed: int, difference: float) -> None:
    rng = np.random.default_rng(seed)
    lengths = [8, *lengths]  # the first trial is whole
    quality, ease = rng.normal(size=len(lengths)), 10 * rng.normal(size=8)
    full = quality + ease.mean() + difference  # a full score need not be the mean over blocks
    blocks = quality[:, None] + ease
    for row, length in zip(blocks, lengths, strict=True):
        row[length:] = np.nan
    known = np.where(np.array(lengths) == 8, full, np.nan)
    scores, errors = full_scores(blocks, known)
    np.testing.assert_allclose(scores, full, atol=1e-6)
    np.testing.assert_allclose(errors, 0.0, atol=1e-6)


def test_known_scores_stay_and_unknowable_ones_are_missing() -> None:
    nan = np.nan
    blocks = np.array([[1.0, 3.0], [nan, nan], [nan, nan], [2.0, nan]])
    known = np.array([2.5, 7.0, nan, nan])
    np.testing.assert_allclose(full_scores(blocks, known)[0], [2.5, 7.0, nan, 3.5], atol=1e-9)
    nobody = np.full(4, nan)
    assert np.isnan(full_scores(blocks, nobody)[0]).all()


def test_standard_errors_are_those_of_the_estimates() -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(400, 1)) + 5 * rng.normal(size=12) + 0.3 * rng.normal(size=(400, 12))
    full = whole.mean(axis=1)
    lengths = rng.integers(2, 12, size=400)
    lengths[:40] = 12
    blocks = np.where(np.arange(12) < lengths[:, None], whole, np.nan)
    scores, errors = full_scores(blocks, np.where(lengths == 12, full, np.nan))
    assert (errors[:40] == 0.0).all()
    for length in (2, 6, 11):
        rows = lengths == length
        assert np.std(scores[rows] - full[rows]) == pytest.approx(errors[rows][0], rel=0.3)


def test_trials_that_were_not_raced_leave_the_standard_errors_as_they_are() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(20, 1)) + rng.normal(size=12) + 0.3 * rng.normal(size=(20, 12))
    full = blocks.mean(axis=1)
    blocks[10:, 3:] = np.nan
    known = np.where(np.arange(20) < 10, full, np.nan)
    scores, errors = full_scores(blocks, known)
    others = np.full((300, 12), np.nan)
    more = full_scores(
        np.concatenate([blocks, others]), np.concatenate([known, rng.normal(size=300)])
    )
    np.testing.assert_allclose(more[0][:20], scores)
    np.testing.assert_allclose(more[1][:20], errors)
    assert np.all(more[1][20:] == 0.0)


def test_an_infinite_score_is_not_estimated_over() -> None:
    blocks = np.array([[1.0, 3.0], [0.0, 2.0], [2.0, np.nan]])
    found, _ = full_scores(blocks, np.array([2.0, -np.inf, np.nan]))
    np.testing.assert_allclose(found, [2.0, -np.inf, 3.0], atol=1e-9)


def raced(n_trials: int, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    runner = Runner(best=0.7)
    objective = MixtureObjective(SPACE, runner, runner, {"code": ["humaneval"]}, racing="block")
    study = optuna.create_study(
        direction="maximize", sampler=DemixSampler(SPACE, seed=0), pruner=pruner
    )
    study.optimize(objective, n_trials=n_trials)
    return study


def test_a_search_whose_trials_are_dropped_still_learns() -> None:
    study = raced(24, optuna.pruners.WilcoxonPruner(p_threshold=0.2))
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert len(complete) < 12
    distances = [abs(trial.params["code"] - 0.7) for trial in study.trials]
    assert np.median(distances[8:]) < 0.5 * np.median(distances[:8])
    found = recommend(study, SPACE)
    assert found.merge_weights["code"] == pytest.approx(0.7, abs=0.05)
    assert found.n_trials == 24
    assert found.best_trial in {trial.number for trial in complete}
    assert found.best_trial == study.best_trial.number


def test_a_resumed_search_goes_on_the_same() -> None:
    study = raced(14, optuna.pruners.WilcoxonPruner(p_threshold=0.2))
    resumed = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    resumed.set_user_attr("demix:objectives", study.user_attrs["demix:objectives"])
    resumed.add_trials(study.trials)
    assert resumed.ask(SPACE.distributions()).params == study.ask(SPACE.distributions()).params


@functools.cache
def _scored() -> list[optuna.trial.FrozenTrial]:
    return raced(10, optuna.pruners.NopPruner()).trials


def scored() -> optuna.Study:
    """A study of ten trials that nothing dropped."""
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))
    study.add_trials(_scored())
    return study


def test_dropped_trials_are_not_the_best_however_they_began() -> None:
    study = scored()
    best = study.best_trial
    blocks = {"humaneval": [value + 5.0 for value in list(best.intermediate_values.values())[:4]]}
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED,
            params={"web": 0.5, "code": 0.5},
            distributions=SPACE.distributions(),
            user_attrs={"demix:blocks": blocks},
        )
    )
    assert recommend(study, SPACE).best_trial == best.number


@pytest.mark.parametrize(
    "blocks", [None, {"other": [1.0]}, {"humaneval": ["a"]}, {"humaneval": 1}]
)
def test_dropped_trials_without_usable_blocks_are_passed_over(blocks: object) -> None:
    study = scored()
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED,
            params={"web": 0.5, "code": 0.5},
            distributions=SPACE.distributions(),
            user_attrs={} if blocks is None else {"demix:blocks": blocks},
        )
    )
    assert recommend(study, SPACE).n_trials == 10
    study.ask(SPACE.distributions())


def test_a_study_of_dropped_trials_only() -> None:
    study = raced(40, optuna.pruners.ThresholdPruner(lower=100.0))
    assert {trial.state.name for trial in study.trials} == {"PRUNED"}
    assert not any(SCORE_PREFIX + "humaneval" in trial.user_attrs for trial in study.trials)
    for trial in study.trials:
        assert trial.params["web"] + trial.params["code"] == pytest.approx(1.0)
    assert not DemixTerminator(SPACE).should_terminate(study)
    with pytest.raises(StudyError, match="all 40 finished trials of this mixture were pruned"):
        recommend(study, SPACE)
