"""The loop of one worker, in this process, on SQLite."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix._progress import Report
from optuna_demix._stop import StopRequest
from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.errors import StorageLostError
from optuna_demix.storage.connection import connect
from optuna_demix.storage.requeue import requeue
from optuna_demix.storage.retrying import RetryingStorage
from optuna_demix.storage.timing import Timing
from optuna_demix.workers.loop import work
from optuna_demix.workers.progress import study_progress

SPACE = MixtureSpace(["web", "code", "math"])
QUICK = Timing(heartbeat_s=1, grace_s=600, patience_s=5.0)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(storage=url, study_name="mix", direction="maximize")
    return load(url)


def load(url: str, timing: Timing = QUICK) -> optuna.Study:
    sampler = DemixSampler(SPACE, seed=0, n_startup_trials=100)
    storage = connect(url, timing=timing)
    return optuna.load_study(study_name="mix", storage=storage, sampler=sampler)


def url_of(study: optuna.Study) -> str:
    return str(study._storage.inner._backend.url)  # type: ignore[attr-defined]


def good(trial: optuna.Trial) -> float:
    return SPACE.suggest(trial)["web"]


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def failing(error: Exception, when: Callable[[int], bool]) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        if when(trial.number):
            raise error
        return value

    return objective


def out_of_memory() -> Exception:
    torch = pytest.importorskip("torch")
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\n…")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (out_of_memory, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (
            lambda: RuntimeError("CUDA error: device-side assert triggered\nat kernel"),
            "RuntimeError: CUDA error: device-side assert triggered",
        ),
        (MemoryError, "MemoryError: "),
    ],
    ids=["cuda memory", "cuda", "memory"],
)
def test_a_failure_is_written_down(
    study: optuna.Study, error: Callable[[], Exception], reason: str
) -> None:
    report = work(study, failing(error(), lambda number: number == 0), n_trials=1)
    assert report.healthy and (report.complete, report.failed) == (1, 1)
    assert study.trials[0].user_attrs[FAILURE_ATTR] == reason


def test_only_three_failures_in_a_row_stop(study: optuna.Study) -> None:
    error = RuntimeError("no luck\ntoday")
    report = work(study, failing(error, lambda number: number in (1, 2, 4, 6, 7, 8)))
    assert not report.healthy
    assert report.stopped == "3 trials in a row failed: RuntimeError: no luck"
    assert (report.complete, report.failed) == (3, 6)
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert [trial.number for trial in failed] == [1, 2, 4, 6, 7, 8]
    assert {trial.user_attrs[FAILURE_ATTR] for trial in failed} == {"RuntimeError: no luck"}
    # The study goes on with another worker.
    assert work(study, good, n_trials=5).healthy
    assert states(study).count("COMPLETE") == 5


def test_nan_fails_its_trial_alone(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        return math.nan if trial.number == 1 else value

    report = work(study, objective, n_trials=3)
    assert report.healthy and states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_secrets_stay_out_of_reasons(study: optuna.Study) -> None:
    study = load(f"{url_of(study)}?password=geheim")
    objective = failing(RuntimeError("geheim is not the password of me"), lambda n: True)
    report = work(study, objective)
    assert "geheim" not in report.stopped
    assert all("geheim" not in trial.user_attrs[FAILURE_ATTR] for trial in study.trials)


def test_the_second_signal_releases_the_trial(
    study: optuna.Study, capfd: pytest.CaptureFixture[str]
) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return value

    lines: list[str] = []
    with StopRequest().installed() as stop:
        report = work(study, objective, stop=stop)
    assert report.stopped == "asked to stop" and report.healthy
    assert str(report) == "1 trials completed, 0 failed, 1 given back; asked to stop"
    said = capfd.readouterr().err
    assert "Traceback" not in said and "failed" not in said
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    released, queued = study.trials[1:]
    assert released.user_attrs[FAILURE_ATTR] == "released: its worker was told to stop"
    assert queued.params == released.params
    with study_progress(study, 2, Report(lines.append)) as shown:
        assert shown is not None
        shown.refresh()
        assert "1 of 2 trials, 0 s" in shown.step.state()
    work(study, good, n_trials=2)
    assert study.trials[2].state == TrialState.COMPLETE
    assert study.trials[2].params == released.params
    assert FAILURE_ATTR not in study.trials[2].user_attrs


def test_after_one_signal_the_trial_is_finished(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return good(trial)

    with StopRequest(grace_s=1e-3).installed() as stop:
        report = work(study, objective, stop=stop)
    assert report.complete == 1 and states(study) == ["COMPLETE"]


def test_before_the_first_trial_a_signal_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest().installed():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


def test_a_trial_that_was_reclaimed_is_left_to_the_other(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        if trial.number == 0:  # as if this worker had been cut off for long
            trial.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            requeue(trial.study, trial.study.trials[0])
        return value

    report = work(study, objective, n_trials=2)
    assert report.healthy and (report.complete, report.failed) == (2, 0)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


@pytest.mark.parametrize("owner", ["elsewhere 0a1b2c3d 1", None], ids=["claimed", "unclaimed"])
def test_the_last_trials_of_others_are_waited_for(study: optuna.Study, owner: str | None) -> None:
    """One of two is lost: the worker that would have been done takes it up again."""
    other = optuna.load_study(study_name="mix", storage=url_of(study)).ask()
    if owner is not None:
        other.suggest_float("web", 0, 1)
        other.set_user_attr(WORKER_ATTR, owner)
        study._storage.set_trial_system_attr(other._trial_id, LEASE_ATTR, 3)
    timing = Timing(heartbeat_s=1, grace_s=1, patience_s=5.0)
    report = work(load(url_of(study), timing), good, n_trials=2)
    assert report.stopped == "the study has its 2 trials" and report.complete == 2
    found = states(study)
    assert found[0] == "FAIL" and found.count("COMPLETE") == 2 and "RUNNING" not in found
    assert "no heartbeat" in study.trials[0].user_attrs[FAILURE_ATTR]


def test_who_waits_looks_for_lost_trials_as_often_as_who_works(study: optuna.Study) -> None:
    optuna.load_study(study_name="mix", storage=url_of(study)).ask()  # and nothing more
    waits: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 12:
                self.set()
            return self.is_set()

    stop = StopRequest()
    stop.event = Event()
    timing = Timing(heartbeat_s=4, grace_s=600, patience_s=5.0)
    report = work(load(url_of(study), timing), good, n_trials=1, stop=stop)
    assert report.stopped == "asked to stop"
    assert 0.5 <= max(waits) <= 1.0  # four times for each heartbeat


def test_trials_by_ask_and_tell_are_counted_but_not_waited_for(study: optuna.Study) -> None:
    by_hand = optuna.load_study(study_name="mix", storage=url_of(study))
    trial = by_hand.ask()
    trial.suggest_float("web", 0, 1)
    report = work(load(url_of(study), Timing(1, 1, 5.0)), good, n_trials=2)
    assert report.complete == 1
    by_hand.tell(trial, 0.5)
    assert states(study) == ["COMPLETE", "COMPLETE"]


def test_a_storage_lost_for_good_is_one_line(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        storage: Any = study._storage

        def gone(*args: Any, **kwargs: Any) -> Any:
            raise StorageLostError("the storage has not answered for 3600 s")

        monkeypatch.setattr(storage, "_keep_trying", gone)
        return value

    report = work(study, objective)
    monkeypatch.undo()
    assert not report.healthy and "not answered" in report.stopped
    assert states(study) == ["RUNNING"]  # for the next worker to reclaim


def test_one_proposal_takes_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_demix.storage.snapshot._FRESH_S", 3600.0)
    inner = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'a.db'}", heartbeat_interval=60)
    storage = RetryingStorage(inner, timing=QUICK)
    study = optuna.create_study(storage=storage, sampler=DemixSampler(SPACE, seed=0))
    reads: list[int] = []
    read = inner.get_all_trials

    def counted(*args: Any, **kwargs: Any) -> Any:
        reads.append(1)
        return read(*args, **kwargs)

    monkeypatch.setattr(inner, "get_all_trials", counted)
    asked: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        asked.append(len(reads))
        return value

    def is_over(study: optuna.Study) -> str | None:
        reads.clear()
        return "enough" if len(asked) == 3 else None

    work(study, objective, is_over=is_over)
    # One to choose with, and one after the choice has been written: has another made the same?
    assert asked == [2, 2, 2]
