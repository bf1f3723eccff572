"""When a report is due, by clocks that the test moves."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from optuna_demix.attributes import REPORT_ATTR
from optuna_demix.report._schedule import ReportSchedule


class Clock:
    def __init__(self, at: float = 0.0) -> None:
        self.now = at

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="demix")


def schedule_of(
    study: optuna.Study, clock: Clock, *, wall: Clock | None = None, **options: Any
) -> ReportSchedule:
    return ReportSchedule(
        study, monotonic=clock, wall=wall or clock, sleep=lambda seconds: None, **options
    )


def test_one_worker_claims_the_report(study: optuna.Study) -> None:
    first, second = schedule_of(study, Clock()), schedule_of(study, Clock())
    with first.claimed() as is_ours, second.claimed() as also:
        assert is_ours and not also
    with second.claimed() as is_ours:
        assert is_ours


def test_a_report_from_the_future_does_not_silence_the_others(study: optuna.Study) -> None:
    schedule_of(study, Clock(), wall=Clock(1800.0)).note(100, 1.0)
    clock = Clock()
    slow = schedule_of(study, clock, wall=Clock(0.0))
    assert not slow.is_due(200)
    clock.now = 300.0
    assert slow.is_due(200)


@pytest.mark.parametrize(
    ("n_trials", "seconds", "due"),
    [
        (100, 1e6, False),  # no new trial
        (109, 1e6, False),  # fewer than a tenth more
        (110, 299.0, False),  # too soon
        (110, 300.0, True),
        (5000, 299.0, False),
    ],
)
def test_a_report_is_due_after_time_and_trials(
    study: optuna.Study, n_trials: int, seconds: float, due: bool
) -> None:
    clock = Clock()
    schedule = schedule_of(study, clock)
    assert schedule.is_due(10)
    schedule.note(100, 2.0)
    clock.now = seconds
    assert schedule.is_due(n_trials) is due
    assert schedule_of(study, clock).is_due(n_trials) is due  # so does a worker that starts now


def test_a_costly_report_is_written_less_often(study: optuna.Study) -> None:
    clock = Clock()
    schedule = schedule_of(study, clock)
    schedule.note(100, 60.0)
    clock.now = 600.0
    assert not schedule.is_due(200)
    clock.now = 1200.0
    assert schedule.is_due(200)


def test_what_others_wrote_there_is_survived(study: optuna.Study) -> None:
    study._storage.set_study_system_attr(study._study_id, REPORT_ATTR, "yesterday")
    schedule = schedule_of(study, Clock())
    assert not schedule.is_due(100)  # its time is unknown: counted from now
    assert schedule.is_newer(100)
