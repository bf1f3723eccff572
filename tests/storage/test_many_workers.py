"""Every kind of storage, with real servers and workers in processes of their own."""

from __future__ import annotations

import time

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, WORKER_ATTR
from optuna_demix.storage.connection import connect
from optuna_demix.workers.heartbeat import records_heartbeats
from tests.storage import crew

TIMING = ("--heartbeat", "1", "--grace", "5")
KINDS = ("sqlite", "postgresql", "mysql", "grpc", "journal")
pytestmark = pytest.mark.xdist_group("storages")


@pytest.mark.parametrize("new_url", KINDS, indirect=True)
def test_workers_share_a_study(new_url: str) -> None:
    workers = [crew.start(new_url, "--n-trials", "8") for _ in range(2)]
    reports = [worker.finish() for worker in workers]
    crew.assert_whole(crew.load(connect(new_url)), 8)
    assert sum(report["complete"] for report in reports) == 8
    assert all(report["heavy"] == [] for report in reports)


@pytest.mark.parametrize(
    "new_url",
    [
        "postgresql",
        pytest.param("mysql", marks=pytest.mark.faults),
        pytest.param("grpc", marks=pytest.mark.faults),
        pytest.param("journal", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_a_killed_worker_s_trial_is_repeated_with_its_weights(new_url: str) -> None:
    study = crew.load(connect(new_url))
    doomed = crew.start(new_url, "--sleep", "600", *TIMING)
    wait_for_trial(study, doomed)
    # A second one that lives as long and says so must keep its trial.
    alive = crew.start(new_url, "--sleep", "7", "--n-trials", "3", *TIMING)
    wait_for_trial(study, alive, n=2)
    pretend_elsewhere(study)
    doomed.kill()
    other = crew.start(new_url, "--n-trials", "3", *TIMING)
    reports = [worker.finish() for worker in (alive, other)]
    crew.assert_whole(study, 3)
    lost, kept = study.trials[0], study.trials[1]
    assert lost.state == TrialState.FAIL and kept.state == TrialState.COMPLETE
    assert "no heartbeat" in lost.user_attrs[FAILURE_ATTR]
    assert lost.params in [t.params for t in study.trials if t.state == TrialState.COMPLETE]
    assert sum(report["failed"] for report in reports) == 0
    assert records_heartbeats(study) == (LEASE_ATTR not in lost.system_attrs)


@pytest.mark.parametrize("new_url", ["postgresql", "mysql", "journal"], indirect=True)
def test_sigterm_releases_the_trial_when_the_grace_is_over(new_url: str) -> None:
    study = crew.load(connect(new_url))
    worker = crew.start(new_url, "--sleep", "600", "--stop-grace", "0.2")
    wait_for_trial(study, worker)
    worker.terminate()
    report = worker.finish()
    assert report["stopped"] == "asked to stop" and report["healthy"]
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    assert "released" in study.trials[0].user_attrs[FAILURE_ATTR]
    crew.start(new_url, "--n-trials", "1").finish()
    crew.assert_whole(study, 1)
    assert study.trials[1].params == study.trials[0].params


def wait_for_trial(study: optuna.Study, worker: crew.Worker, n: int = 1) -> None:
    """Until n trials are being evaluated, or a worker has ended."""
    while worker.poll() is None:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if sum(len(trial.params) == len(crew.COMPONENTS) for trial in running) >= n:
            return
        time.sleep(0.1)
    raise AssertionError(worker.log())


def pretend_elsewhere(study: optuna.Study) -> None:
    """Make a trial look as if it ran on another host, where nobody sees that it is dead."""
    trial = study.trials[0]
    study._storage.set_trial_user_attr(trial._trial_id, WORKER_ATTR, "elsewhere 0a1b2c3d 1")
