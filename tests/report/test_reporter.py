from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.report._schedule import ReportSchedule
from optuna_demix.report.reporter import MIN_TRIALS, Reporter
from optuna_demix.search._predictions import violation
from optuna_demix.search.proposals.fit import Fit

pytestmark = pytest.mark.xdist_group("report")
SPACE = MixtureSpace(["web", "code", "math"], upper={"code": 0.5})

PREDICTED = {"predicted:skill", "predicted_std:skill", "predicted:loss", "predicted_std:loss"}


def objective(trial: optuna.Trial) -> list[float]:
    w = SPACE.suggest(trial)
    return [-((w["web"] - 0.5) ** 2), (w["code"] - 0.3) ** 2]


class Foreseeing(DemixSampler):
    """Tells its fit, as a worker asks for it."""

    def fit_of(self, study: optuna.Study) -> Fit | None:
        state = self._state_of(study)._space_state
        return None if state is None else state.fit


def make(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def reporter_of(study: optuna.Study, write: Any = None, **options: Any) -> Reporter:
    schedule = ReportSchedule(study, sleep=lambda s: None, **options)
    return Reporter(study, SPACE, write, schedule=schedule)


def test_trials_tell_what_was_expected_of_them() -> None:
    study = make(Foreseeing(SPACE, seed=0, n_startup_trials=8))
    study.set_metric_names(["skill", "loss"])
    study.optimize(reporter_of(study).watching(objective), n_trials=14)
    for trial in study.trials:
        keys = {key for key in trial.user_attrs if key.startswith("predicted")}
        named = {
            f"{kind}:{n}" for kind in ("predicted", "predicted_std") for n in ("skill", "loss")
        }
        assert keys == (named if trial.number >= 8 else set())
        assert trial.user_attrs["violation"] == 0.0
        assert all(type(value) is float for value in trial.user_attrs.values())
    last = study.trials[-5:]
    for j, name in enumerate(["skill", "loss"]):  # in the study's own orientation
        predicted = np.array([trial.user_attrs[f"predicted:{name}"] for trial in last])
        std = np.array([trial.user_attrs[f"predicted_std:{name}"] for trial in last])
        actual = np.array([trial.values[j] for trial in last])
        assert np.all(std > 0)
        assert np.all(np.abs(predicted - actual) < 6 * std)


@pytest.mark.parametrize("how", ["rank", "mean"])
def test_trials_have_a_composite_to_sort_by(how: str) -> None:
    study = make(Foreseeing(SPACE, seed=0, n_startup_trials=8, composite=how))
    study.optimize(reporter_of(study).watching(objective), n_trials=11)
    found = {t.number: t.user_attrs.get("composite") for t in study.trials}
    if how == "mean":
        for trial in study.trials:  # the second objective is minimized
            expected = (trial.values[0] - trial.values[1]) / 2
            assert found[trial.number] == pytest.approx(expected)
        return
    assert [n for n, value in found.items() if value is None] == list(range(8))
    ranked = [value for value in found.values() if value is not None]
    assert all(0.0 <= value <= 1.0 for value in ranked) and max(ranked) > 0.8


def test_one_objective_needs_no_composite() -> None:
    study = optuna.create_study(
        direction="maximize", sampler=Foreseeing(SPACE, seed=0, n_startup_trials=4)
    )
    single = reporter_of(study).watching(lambda trial: objective(trial)[0])
    study.optimize(single, n_trials=6)
    assert not any("composite" in trial.user_attrs for trial in study.trials)


def test_a_sampler_that_foresees_nothing_is_fine() -> None:
    study = make(optuna.samplers.RandomSampler(seed=0))
    study.optimize(reporter_of(study).watching(objective), n_trials=3)
    for trial in study.trials:
        missed = trial.user_attrs["violation"]
        assert missed == violation(SPACE, trial.params) > 0.0


def test_violation_is_the_share_of_data_that_has_to_move() -> None:
    assert violation(SPACE, {"web": 0.5, "code": 0.5, "math": 0.0}) == 0.0
    params = {"web": 0.2, "code": 0.8, "math": 0.0}
    assert violation(SPACE, params) == pytest.approx(0.3)
    assert violation(SPACE, {"web": 1.0}) is None


def test_the_report_comes_when_there_are_enough_trials() -> None:
    study = make(optuna.samplers.RandomSampler(seed=0))
    written: list[int] = []
    reporter = reporter_of(study, lambda: written.append(len(study.trials)), interval_s=0.0)
    reporter._monotonic = iter(range(0, 10**6, 100)).__next__  # checks each time
    for _ in range(30):
        study.optimize(objective, n_trials=1)
        reporter.told()
    assert written[0] == MIN_TRIALS
    growth = np.array(written[1:]) / np.array(written[:-1])
    assert np.all(growth > 1.1 - 1e-9) and np.all(growth < 1.3)


def test_the_last_report_shows_the_last_trial() -> None:
    study = make(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=MIN_TRIALS)
    written: list[int] = []

    def write() -> None:
        written.append(len(study.trials))
        if len(written) == 1:  # a trial of another worker ends while this one writes
            study.optimize(objective, n_trials=1)

    reporter = reporter_of(study, write)
    reporter.finish()
    reporter.finish()
    assert written == [MIN_TRIALS, MIN_TRIALS + 1]


def test_what_goes_wrong_is_said_once_and_ends_nothing() -> None:
    study = make(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=MIN_TRIALS)
    said: list[str] = []

    def write() -> None:
        raise OSError("disk full\nat 0x1")

    reporter = Reporter(study, SPACE, write, schedule=ReportSchedule(study), say=said.append)
    reporter.finish()
    reporter.finish()
    assert said == ["dashboard not updated (OSError: disk full)"]

    def broken(trial: optuna.Trial, values: Any) -> None:
        raise ValueError("bad")

    reporter.annotate = broken  # type: ignore[method-assign,assignment]
    study.optimize(reporter.watching(objective), n_trials=1)
    assert study.trials[-1].state.name == "COMPLETE" and "ValueError: bad" in said[-1]


def test_without_a_dashboard_nothing_is_written() -> None:
    study = make(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=MIN_TRIALS)
    reporter = reporter_of(study, None)
    reporter.told()
    reporter.finish()
    assert study._storage.get_study_system_attrs(study._study_id) == {}
