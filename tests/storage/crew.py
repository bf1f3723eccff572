"""Workers for the storage tests: real processes with the real loop and a cheap objective.

They load neither torch nor lm-eval.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import scipy.spatial  # noqa: F401
from _forks import fork_context, start_server

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix._stop import StopRequest
from optuna_demix.attributes import FAILURE_ATTR, WORKER_ATTR
from optuna_demix.storage.connection import connect, storage_url
from optuna_demix.storage.timing import Timing
from optuna_demix.surrogate import Surrogate
from optuna_demix.workers.loop import work

# What a first connection and a first proposal load is loaded once for all workers.
optuna.storages.RDBStorage("sqlite:///:memory:")
Surrogate()
CONTEXT = fork_context(__name__)

COMPONENTS = ("web", "code", "math", "books")
TARGET = (0.5, 0.2, 0.2, 0.1)
SCORE_FACTOR = 0.1  # the second objective


def score(weights: Sequence[float]) -> tuple[float, float]:
    distance = float(sum((w - t) ** 2 for w, t in zip(weights, TARGET, strict=True)))
    return -distance, SCORE_FACTOR * float(weights[1])


def new_study(url: str, *, journal: bool = False) -> None:
    """Make an empty study the way a user does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: Any = url
    if journal:
        backend = optuna.storages.journal.JournalFileBackend(url)
        storage = optuna.storages.JournalStorage(backend)
    optuna.create_study(storage=storage, study_name="mix", directions=["maximize", "maximize"])


def start_process(act: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that is forked from a server which has imported everything."""
    start_server()
    process = CONTEXT.Process(target=act, args=arguments, daemon=True)
    process.start()
    return process


def said_at_once(act: Callable[..., None], each: Sequence[Sequence[Any]]) -> list[Any]:
    """Let processes act at the same moment; what each has said, in no order.

    Args:
        act: Takes arguments, a barrier to wait at, and a queue for what it says.
        each: The arguments of each process.
    """
    start, said = CONTEXT.Barrier(len(each), timeout=100.0), CONTEXT.Queue()
    crowd = [start_process(act, *arguments, start, said) for arguments in each]
    for process in crowd:
        process.join()
        assert process.exitcode == 0
    return [said.get() for _ in crowd]


class Worker:
    """A worker in a process of its own, forked from a server that has imported everything."""

    def __init__(self, url: str, options: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="crew")
        self._report = Path(self._folder.name, "report.json")
        self._log = Path(self._folder.name, "log")
        arguments = (url, list(options), str(self._report), str(self._log))
        self._process = start_process(_serve, *arguments)

    def poll(self) -> int | None:
        """Its exit status, or ``None`` while it lives."""
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL it, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.terminate()

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text() if self._log.exists() else ""

    def finish(self) -> dict[str, Any]:
        """Wait until it is done; returns its report."""
        self._process.join()
        assert self._process.exitcode == 0, self.log()
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report


def start(url: str, *options: str) -> Worker:
    """Start one worker."""
    return Worker(url, options)


def _serve(url: str, options: list[str], report: str, log: str) -> None:
    stream = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.environ["OPTUNA_STORAGE"] = url
    os.environ["OMP_NUM_THREADS"] = "1"
    result = run(options)
    Path(report).write_text(json.dumps(result))


def load(storage: Any) -> optuna.Study:
    return optuna.load_study(study_name="mix", storage=storage)


def assert_whole(study: optuna.Study, n_trials: int) -> None:
    """Nothing lost, nothing twice, nothing left."""
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") == n_trials
    assert set(states) <= {"COMPLETE", "FAIL"}, {s: states.count(s) for s in states}
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    for trial in complete:
        weights = np.array([trial.params[name] for name in COMPONENTS])
        assert abs(weights.sum() - 1) < 1e-12 and np.all(weights >= 0)
        assert trial.values == list(score(weights.tolist()))
        assert WORKER_ATTR in trial.user_attrs
    assert len({tuple(trial.params.values()) for trial in complete}) == n_trials
    retried = {n for trial in trials for n in trial.system_attrs.get("retry_history", [])}
    for trial in trials:
        if trial.state.name == "FAIL":
            assert FAILURE_ATTR in trial.user_attrs or trial.number in retried, trial


def run(arguments: list[str]) -> dict[str, Any]:
    """Be a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-trials", type=int)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--heartbeat", type=int, default=60)
    parser.add_argument("--grace", type=int, default=600)
    parser.add_argument("--patience", type=float, default=600.0)
    parser.add_argument("--stop-grace", type=float, default=20.0)
    parser.add_argument("--clock-ahead", type=float, default=0.0)
    parser.add_argument("--search", action="store_true", help="with a surrogate")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.clock_ahead:
        set_clock(options.clock_ahead)
    timing = Timing(options.heartbeat, options.grace, options.patience)
    space = MixtureSpace(COMPONENTS)
    startup = None if options.search else 10**6
    sampler = DemixSampler(space, seed=0, n_startup_trials=startup)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        weights = space.suggest(trial)
        time.sleep(options.sleep)
        return score([weights[name] for name in COMPONENTS])

    stop = StopRequest(grace_s=options.stop_grace)
    with stop.installed():
        storage = connect(storage_url(None), timing=timing, give_up=stop.urgent)
        study = optuna.load_study(study_name="mix", storage=storage, sampler=sampler)
        report = work(study, objective, n_trials=options.n_trials, stop=stop)
    heavy = [name for name in ("torch", "transformers", "lm_eval") if name in sys.modules]
    return {**vars(report), "heavy": heavy}


def set_clock(seconds: float) -> None:
    """Put this process's wall clock ahead: what Optuna writes, and what ``time.time`` says."""
    import datetime

    import optuna.storages._rdb.storage as rdb
    import optuna.storages.journal._storage as journal

    now = time.time
    time.time = lambda: now() + seconds

    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            real = datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)
            return real

    rdb.datetime = Ahead  # type: ignore[attr-defined]
    if isinstance(getattr(journal, "datetime", None), type(datetime)):
        journal.datetime.datetime = Ahead  # type: ignore[misc]
