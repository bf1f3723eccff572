"""Simulated workers for the scaling benchmark: real processes, loop, sampler and storage.

Only the evaluation is simulated: a sleep. Each process keeps account of where its time goes.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _forks import fork_context

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.search.objective import MixtureObjective
from optuna_demix.storage.connection import connect
from optuna_demix.surrogate import Surrogate
from optuna_demix.workers.loop import work

STUDY = "scaling"
COMPONENTS = tuple(f"c{i}" for i in range(8))
CAPABILITIES = {"one": ["a", "b"], "two": ["c", "d"]}
SHORTEST_S, LONGEST_S = 2.0, 30.0

CONTEXT = fork_context("_crowd")


def evaluation_s(seed: int, number: int, *, scale: float = 1.0) -> float:
    """Seconds that a trial takes: log-uniform from 2 to 30, mean 10.3, times a scale."""
    low, high = np.log(SHORTEST_S), np.log(LONGEST_S)
    return scale * float(np.exp(np.random.default_rng([seed, number]).uniform(low, high)))


def benchmark_scores(weights: np.ndarray[Any, Any]) -> dict[str, float]:
    """Scores of the four benchmarks, smooth in the weights (K,)."""
    return {
        name: float(-np.sum((weights - np.roll(np.linspace(0, 0.25, len(weights)), i)) ** 2))
        for i, name in enumerate(name for names in CAPABILITIES.values() for name in names)
    }


@dataclass
class Account:
    """Where the time of one worker goes, within a window of wall time.

    Attributes:
        start: Beginning of the window, seconds since the epoch.
        end: Its end.
        spent: Seconds by purpose.
        counts: Events by kind.
    """

    start: float
    end: float
    spent: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    since: float = 0.0

    @contextmanager
    def spending(self, purpose: str) -> Iterator[None]:
        """Book the block's time; a block within another interrupts its account."""
        self._book()
        self.stack.append(purpose)
        try:
            yield
        finally:
            self._book()
            self.stack.pop()

    def count(self, event: str) -> None:
        """Count an event if it falls into the window."""
        if self.start <= time.time() < self.end:
            self.counts[event] = self.counts.get(event, 0) + 1

    def _book(self) -> None:
        now = time.time()
        inside = max(0.0, min(now, self.end) - max(self.since, self.start))
        if self.stack and inside > 0:
            self.spent[self.stack[-1]] = self.spent.get(self.stack[-1], 0.0) + inside
        self.since = now


class Model:
    """Merges nothing; it remembers the weights."""

    names = COMPONENTS

    def __init__(self) -> None:
        """Start anywhere."""
        self.weights = np.zeros(len(COMPONENTS))

    def merge(self, w: np.ndarray[Any, Any]) -> None:
        """Take weights (K,)."""
        self.weights = w


class Sleeper:
    """A scorer that takes its time."""

    def __init__(self, model: Model, account: Account, seed: int, scale: float) -> None:
        """Score ``model``; a scale of 0 takes no time."""
        self.model, self.account, self.seed, self.scale = model, account, seed, scale
        self.number = 0
        self.memory_mb = float("nan")  # at the beginning of the window

    def score(self) -> dict[str, float]:
        """Sleep, then score."""
        if np.isnan(self.memory_mb) and time.time() >= self.account.start:
            self.memory_mb = memory_mb()
        with self.account.spending("evaluation"):
            wanted = evaluation_s(self.seed, self.number, scale=self.scale)
            # Nobody measures beyond the window, so nobody has to wait there.
            time.sleep(max(0.0, min(wanted, self.account.end - time.time())))
        self.account.count("evaluated")
        return benchmark_scores(self.model.weights)


def timed(call: Callable[..., Any], account: Account, purpose: str) -> Callable[..., Any]:
    """A function whose time is booked, in the thread that keeps the account."""
    owner = os.getpid(), threading.get_ident()

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if (os.getpid(), threading.get_ident()) != owner:
            return call(*args, **kwargs)
        with account.spending(purpose):
            return call(*args, **kwargs)

    return wrapper


def watch_calls(storage: Any, sampler: Any, account: Account) -> None:
    """Book the calls of a sampler, and those of a storage, also where the sampler makes them."""
    storage._keep_trying = timed(storage._keep_trying, account, "storage")
    for name in ("infer_relative_search_space", "sample_relative", "before_trial", "after_trial"):
        setattr(sampler, name, timed(getattr(sampler, name), account, "sampler"))


@dataclass(frozen=True)
class Job:
    """What a simulated worker is to do.

    Attributes:
        url: The storage.
        seed: Of the sampler and of the evaluations.
        start: Beginning of the window of measurement, seconds since the epoch.
        end: Its end; no trial is started later.
        go: When to begin.
        scale: Of evaluations.
        surrogate: Whether the sampler uses its surrogate, or stays in its startup design.
    """

    url: str
    seed: int
    go: float
    start: float
    end: float
    scale: float
    surrogate: bool


def run(job: Job) -> dict[str, Any]:
    """Be one worker until the end of the window; returns its account."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = MixtureSpace(COMPONENTS)
    startup = None if job.surrogate else 10**7
    sampler = DemixSampler(space, seed=job.seed, n_startup_trials=startup)
    began = time.time()
    storage: Any = connect(job.url)
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)
    study.get_trials(deepcopy=False)
    first_read = time.time() - began
    account = Account(job.start, job.end)
    model = Model()
    scorer = Sleeper(model, account, job.seed, job.scale)
    objective = MixtureObjective(space, model, scorer, CAPABILITIES)
    watch_calls(storage, sampler, account)
    late = max(0.0, time.time() - job.go)
    time.sleep(max(0.0, job.go - time.time()))

    def evaluate(trial: optuna.Trial) -> Any:
        scorer.number = trial.number
        return objective(trial)

    with account.spending("other"):
        work(
            study,
            evaluate,
            n_trials=10**9,
            deadline=time.monotonic() + job.end - time.time(),
        )
    return {
        "spent": account.spent,
        "counts": account.counts,
        "late_s": late,
        "first_read_s": first_read,
        "memory_mb": (scorer.memory_mb, memory_mb()),
    }


def memory_mb() -> float:
    """Memory of this process that it shares with nobody, in MB."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) / 1e3
    return float("nan")


def serve(job: Job, results: Any) -> None:
    """Target of a process."""
    try:
        results.put(run(job))
    except BaseException as error:
        results.put({"error": f"{type(error).__name__}: {error}"})


def serve_database(url: str, ready: Any, done: Any) -> None:
    """Target of a process: Optuna's gRPC server in front of a database."""
    from optuna_demix.storage import server

    with server.serve(url, host="127.0.0.1", port=0, n_threads=32) as port:
        ready.put(port)
        done.wait()


warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# What a first connection and a first fit load, once for all processes.
optuna.storages.RDBStorage("sqlite:///:memory:")
Surrogate()
