"""Faults: workers killed, databases stopped, networks cut, disks full, clocks wrong.

Each has a short form, mostly under the marker ``slow``, and a long one under the marker
``faults``. Afterwards every finished trial is as it was written, every lost one has been repeated
or says why it failed, and none is running.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix.storage.connection import connect
from optuna_demix.storage.server import serve
from tests.storage import crew
from tests.storage.disks import filled, small_disk
from tests.storage.ledger import Ledger
from tests.storage.servers import Cable, PostgreSQL

pytestmark = pytest.mark.xdist_group("storages")
FAST = ("--heartbeat", "1", "--grace", "4")


@dataclass(frozen=True)
class Size:
    """How much of a fault: seconds of it, trials meanwhile."""

    n_trials: int
    n_workers: int
    cut_s: float
    n_kills: int


def sizes(short: Size, long: Size, *, is_fast: bool = False) -> Any:
    return pytest.mark.parametrize(
        "size",
        [
            pytest.param(short, id="short", marks=[] if is_fast else [pytest.mark.slow]),
            pytest.param(long, id="long", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
        ],
    )


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    made = postgresql.new_database()
    crew.new_study(made)
    return made


@pytest.fixture
def ledger(record_property: Any, size: Size) -> Ledger:
    return Ledger(record_property, size.n_workers)


def n_complete(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def until(study: optuna.Study, n_trials: int, workers: list[Any]) -> None:
    """Until a study has so many complete trials, or all workers have ended."""
    while n_complete(study) < n_trials and any(worker.poll() is None for worker in workers):
        time.sleep(0.05)


@sizes(Size(48, 8, 0, 0), Size(2000, 8, 0, 0))
def test_eight_workers_do_each_trial_once(url: str, ledger: Ledger, size: Size) -> None:
    options = ("--n-trials", str(size.n_trials))
    workers = [crew.start(url, *options) for _ in range(size.n_workers)]
    reports = [worker.finish() for worker in workers]
    study = crew.load(connect(url))
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert sum(report["complete"] for report in reports) == size.n_trials
    assert all(report["failed"] == 0 for report in reports)


@sizes(Size(16, 3, 0, 2), Size(600, 6, 0, 40), is_fast=True)
def test_workers_are_killed_at_random(url: str, ledger: Ledger, size: Size) -> None:
    study = crew.load(connect(url))
    dice = random.Random(0)
    options = ("--n-trials", str(size.n_trials), "--sleep", "0.3", *FAST)
    workers = [crew.start(url, *options) for _ in range(size.n_workers)]
    for kill in range(size.n_kills):
        # Spread over the run by what has been done, not by a clock.
        until(study, (kill + 1) * size.n_trials // (size.n_kills + 2), workers)
        ledger.fault("worker killed (SIGKILL)", study)
        victim = dice.randrange(size.n_workers)
        workers[victim].kill()
        workers[victim] = crew.start(url, *options)
    for worker in workers:
        worker.finish()
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)


@sizes(Size(20, 3, 1.0, 1), Size(400, 6, 30.0, 3))
def test_postgresql_is_restarted(ledger: Ledger, size: Size) -> None:
    server = PostgreSQL()
    try:
        url = server.new_database()
        crew.new_study(url)
        study = crew.load(connect(url))
        options = ("--n-trials", str(size.n_trials), "--sleep", "0.2", *FAST)
        workers = [crew.start(url, *options) for _ in range(size.n_workers)]
        for restart in range(size.n_kills):
            until(study, (restart + 1) * size.n_trials // (size.n_kills + 2), workers)
            ledger.fault("PostgreSQL restarted", study)
            server.stop()
            time.sleep(size.cut_s)
            server.start()
        reports = [worker.finish() for worker in workers]
        ledger.settle(study, size.n_trials)
        crew.assert_whole(study, size.n_trials)
        assert all(report["healthy"] for report in reports)
    finally:
        server.close()


@sizes(Size(12, 2, 1.0, 1), Size(200, 6, 30.0, 2), is_fast=True)
def test_the_network_is_cut(postgresql: PostgreSQL, url: str, ledger: Ledger, size: Size) -> None:
    study = crew.load(connect(url))
    cable = Cable(postgresql.socket)
    database = url.partition("?")[0].rpartition("/")[2]
    far = f"postgresql://postgres@127.0.0.1:{cable.port}/{database}"
    try:
        options = ("--n-trials", str(size.n_trials), "--sleep", "0.3", *FAST)
        workers = [crew.start(far, *options) for _ in range(size.n_workers)]
        for cut in range(size.n_kills):
            until(study, (cut + 1) * size.n_trials // (size.n_kills + 2), workers)
            ledger.fault("network cut", study)
            cable.cut()
            time.sleep(size.cut_s)
            # Connections may survive a cut or be torn down by it.
            cable.mend(reset=cut % 2 == 0)
        reports = [worker.finish() for worker in workers]
    finally:
        cable.close()
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert all(report["healthy"] for report in reports)


@sizes(Size(8, 2, 5.0, 1), Size(120, 4, 30.0, 2))
def test_one_worker_is_cut_off_longer_than_the_grace(
    postgresql: PostgreSQL, url: str, ledger: Ledger, size: Size
) -> None:
    """Its trial goes to another worker; when it is back it must not disturb that one."""
    study = crew.load(connect(url))
    cable = Cable(postgresql.socket)
    database = url.partition("?")[0].rpartition("/")[2]
    far = f"postgresql://postgres@127.0.0.1:{cable.port}/{database}"
    options = ("--n-trials", str(size.n_trials), "--sleep", "1.0", "--heartbeat", "1",
               "--grace", "2")  # fmt: skip
    try:
        workers = [crew.start(far, *options)]
        workers += [crew.start(url, *options) for _ in range(size.n_workers - 1)]
        until(study, size.n_trials // 4, workers)
        pretend_elsewhere(study)
        ledger.fault("one worker cut off", study)
        cable.cut()
        time.sleep(size.cut_s)
        cable.mend(reset=True)
        reports = [worker.finish() for worker in workers]
    finally:
        cable.close()
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert all(report["healthy"] for report in reports)


@sizes(Size(10, 2, 2.0, 1), Size(120, 4, 30.0, 3))
def test_the_server_is_frozen(
    postgresql: PostgreSQL, url: str, ledger: Ledger, size: Size
) -> None:
    study = crew.load(connect(url))
    options = ("--n-trials", str(size.n_trials), "--sleep", "0.3", *FAST)
    workers = [crew.start(url, *options) for _ in range(size.n_workers)]
    for freeze in range(size.n_kills):
        until(study, (freeze + 1) * size.n_trials // (size.n_kills + 2), workers)
        ledger.fault("PostgreSQL frozen (SIGSTOP)", study)
        with stopped(process_tree(postgresql.pid)):
            time.sleep(size.cut_s)
    reports = [worker.finish() for worker in workers]
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert all(report["healthy"] for report in reports)


@sizes(Size(12, 2, 2.0, 1), Size(80, 4, 30.0, 2))
def test_the_grpc_server_is_restarted(url: str, ledger: Ledger, size: Size) -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    study = crew.load(connect(url))
    with serve(url, host="127.0.0.1", port=0, n_threads=10) as port:
        far = f"grpc://127.0.0.1:{port}"
        options = ("--n-trials", str(size.n_trials), "--sleep", "0.3", *FAST)
        workers = [crew.start(far, *options) for _ in range(size.n_workers)]
        until(study, size.n_trials // 3, workers)
        ledger.fault("gRPC server restarted", study)
    time.sleep(size.cut_s)
    with serve(url, host="127.0.0.1", port=port, n_threads=10):
        reports = [worker.finish() for worker in workers]
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert all(report["healthy"] for report in reports)


@pytest.mark.parametrize("new_url", ["postgresql", "journal"], indirect=True)
@sizes(Size(9, 3, 0, 1), Size(150, 6, 0, 10))
def test_clocks_differ_by_an_hour(new_url: str, ledger: Ledger, size: Size) -> None:
    """A worker whose clock is wrong takes no living trial and loses none of its own."""
    study = crew.load(connect(new_url))
    options = ("--n-trials", str(size.n_trials), "--sleep", "0.3", "--heartbeat", "1",
               "--grace", "60")  # fmt: skip
    ahead = ("0", "3600", "-3600")
    workers = [
        crew.start(new_url, *options, "--clock-ahead", ahead[i % 3]) for i in range(size.n_workers)
    ]
    for _ in range(size.n_workers - size.n_workers // 3):
        ledger.fault("clock an hour off", study)
    reports = [worker.finish() for worker in workers]
    ledger.settle(study, size.n_trials)
    crew.assert_whole(study, size.n_trials)
    assert {
        trial.state for trial in study.trials if "retry_history" in trial.system_attrs
    } == set()
    assert sum(report["complete"] for report in reports) == size.n_trials


@sizes(Size(16, 2, 0.5, 1), Size(200, 4, 10.0, 3), is_fast=True)
def test_the_disk_of_the_journal_fills_up(tmp_path: Path, ledger: Ledger, size: Size) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        url = str(disk / "mix.log")
        crew.new_study(url, journal=True)
        study = crew.load(connect(url))
        options = ("--n-trials", str(size.n_trials), "--sleep", "0.1", *FAST)
        workers = [crew.start(url, *options) for _ in range(size.n_workers)]
        until(study, size.n_trials // 3, workers)
        ledger.fault("disk of the journal full", study)
        with filled(disk):
            time.sleep(size.cut_s)
        reports = [worker.finish() for worker in workers]
        ledger.settle(study, size.n_trials)
        crew.assert_whole(study, size.n_trials)
        assert all(report["healthy"] for report in reports)


# Means ----------------------------------------------------------------------------------------


def pretend_elsewhere(study: optuna.Study) -> None:
    """The workers are on one host, but shall not see that from each other's process ids."""
    from optuna_demix.attributes import WORKER_ATTR

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage = study._storage
        try:
            storage.set_trial_user_attr(trial._trial_id, WORKER_ATTR, "elsewhere 0a1b2c3d 1")
        except RuntimeError:
            continue  # it has just finished


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def process_tree(pid: int) -> list[int]:
    import psutil

    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]
