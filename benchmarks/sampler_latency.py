"""How long a worker waits for its next mixture, beside Optuna's own samplers.

A SQLite study with n finished trials of K components is written once for each (n, K), and copied
for each sampler. A process of its own opens its copy and runs ask, suggest, tell; timed is what a
worker waits for: `ask` and the suggestion of all weights, storage included. Reported are

- median_ask_s: the median over asks after the first one;
- mean_ask_s: their mean; for ours over a whole interval between two fits, so that it holds what
  fits cost;
- first_ask_s: the first ask of a new process, which reads all trials and fits once.

The rows of RandomSampler are what the database alone takes.

GPSampler has no row at 10,000 trials: its kernel matrix alone would be 800 MB, its ask hours.

The second part starts eight processes that share a study and a seed and ask at the same moment,
repeatedly; it counts proposals that are repeated, and the smallest total variation between two.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _common import parser, print_table, provenance, write

if TYPE_CHECKING:
    import optuna

SIZES = (100, 1_000, 10_000)
CELLS = {7: SIZES, 50: SIZES, 128: (1_000,)}  # trials by number of components
QUICK_CELLS = {7: (100, 300)}
MANY, MANY_S = 128, 0.25  # components, and seconds that an ask may take with them
STUDY = "latency"
GP_MOST = 1_000
ASKS = {"DemixSampler": 0, "TPESampler": 30, "GPSampler": 5, "RandomSampler": 30}
WORKERS, ROUNDS = 8, 6
_COLUMNS = {
    "n_trials": "d",
    "k": "d",
    "sampler": "",
    "median_ask_s": ".4f",
    "mean_ask_s": ".4f",
    "first_ask_s": ".3f",
    "asks": "d",
}


def names(k: int) -> list[str]:
    """Names of K components."""
    return [f"c{i:02d}" for i in range(k)]


def score(w: np.ndarray, number: int) -> float:
    """A saturating law of the shares with noise; the values only have to be worth learning."""
    gain = np.linspace(0.2, 1.0, w.shape[-1])
    noise = np.random.default_rng([3, number]).standard_normal()
    return float((gain * (1 - np.exp(-4 * w))).sum() + 0.01 * noise)


def make_study(path: Path, n: int, k: int) -> None:
    """Write a SQLite study with n finished trials in one transaction."""
    import optuna
    from optuna.storages._rdb import models
    from sqlalchemy import create_engine, insert

    url = f"sqlite:///{path}"
    optuna.create_study(storage=url, study_name=STUDY, direction="maximize")
    rng = np.random.default_rng([n, k])
    weights = rng.dirichlet(np.full(k, 0.7), size=n)
    distribution = optuna.distributions.distribution_to_json(
        optuna.distributions.FloatDistribution(0.0, 1.0)
    )
    now = datetime.now()
    trials, params, values = [], [], []
    for number, w in enumerate(weights):
        trials.append(
            {
                "trial_id": number + 1,
                "number": number,
                "study_id": 1,
                "state": optuna.trial.TrialState.COMPLETE,
                "datetime_start": now,
                "datetime_complete": now,
            }
        )
        values.append(
            {
                "trial_id": number + 1,
                "objective": 0,
                "value": score(w, number),
                "value_type": models.TrialValueModel.TrialValueType.FINITE,
            }
        )
        params += [
            {
                "trial_id": number + 1,
                "param_name": name,
                "param_value": float(value),
                "distribution_json": distribution,
            }
            for name, value in zip(names(k), w, strict=True)
        ]
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(models.TrialModel), trials)
        connection.execute(insert(models.TrialValueModel), values)
        for start in range(0, len(params), 50_000):
            connection.execute(insert(models.TrialParamModel), params[start : start + 50_000])
    engine.dispose()


def sampler_and_suggest(
    name: str, k: int, seed: int
) -> tuple[optuna.samplers.BaseSampler, Callable[[Any], np.ndarray]]:
    """A sampler, and how a trial suggests its mixture under it."""
    import optuna

    from optuna_demix import DemixSampler, MixtureSpace

    if name == "DemixSampler":
        space = MixtureSpace(names(k))
        return DemixSampler(space, seed=seed), lambda t: np.array(list(space.suggest(t).values()))
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "TPESampler": lambda: optuna.samplers.TPESampler(seed=seed),
        "GPSampler": lambda: optuna.samplers.GPSampler(seed=seed),
        "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=seed),
    }

    def normalized(trial: optuna.Trial) -> np.ndarray:
        x = np.array([trial.suggest_float(each, 0.0, 1.0) for each in names(k)])
        return x / max(float(x.sum()), 1e-12)

    return samplers[name](), normalized


def time_asks(path: Path, name: str, k: int, n: int, seed: int) -> dict[str, Any]:
    """Seconds of each ask in this process; the study grows by one trial with each."""
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler, suggest = sampler_and_suggest(name, k, seed)
    study = optuna.load_study(storage=f"sqlite:///{path}", study_name=STUDY, sampler=sampler)
    times = []
    for _ in range((ASKS[name] or max(30, n // 16 + 2)) + 1):
        start = time.perf_counter()
        trial = study.ask()
        w = suggest(trial)
        times.append(time.perf_counter() - start)
        study.tell(trial, score(w, trial.number))
    return {
        "n_trials": n,
        "k": k,
        "sampler": name,
        "median_ask_s": float(np.median(times[1:])),
        "mean_ask_s": float(np.mean(times[1:])),
        "first_ask_s": times[0],
        "asks": len(times) - 1,
    }


def _ask_at_once(path: str, k: int, seed: int, barrier: Any, found: Any) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler, suggest = sampler_and_suggest("DemixSampler", k, seed)
    study = optuna.load_study(storage=f"sqlite:///{path}", study_name=STUDY, sampler=sampler)
    for _ in range(ROUNDS):
        barrier.wait()
        trial = study.ask()
        w = suggest(trial)
        found.put(w.tolist())
        barrier.wait()  # all are running at once before any is told
        study.tell(trial, score(w, trial.number))


def ask_at_once(path: Path, k: int, seed: int) -> dict[str, Any]:
    """Eight processes with one seed ask at the same moment, several times."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(WORKERS), context.Queue()
    arguments = (str(path), k, seed, barrier, found)
    workers = [context.Process(target=_ask_at_once, args=arguments) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    proposals = np.array([found.get() for _ in range(WORKERS * ROUNDS)])
    for worker in workers:
        worker.join()
    from scipy.spatial.distance import pdist

    return {
        "workers": WORKERS,
        "k": k,
        "proposals": len(proposals),
        "repeated": len(proposals) - len(np.unique(proposals, axis=0)),
        "smallest_distance": float(0.5 * pdist(proposals, "cityblock").min()),
    }


def checks(rows: list[dict[str, Any]], at_once: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The targets, each with what was measured."""
    cell = {(row["n_trials"], row["k"], row["sampler"]): row["median_ask_s"] for row in rows}
    found = []
    for (n, k, sampler), ours in cell.items():
        if sampler != "DemixSampler":
            continue
        tpe, gp = cell[n, k, "TPESampler"], cell.get((n, k, "GPSampler"))
        if n >= 1_000:
            found.append({"target": f"≤ TPE at n={n}, K={k}", "value": tpe / ours, "least": 1.0})
        if k == MANY:
            text = f"{MANY_S} s over the ask at n={n}, K={k}"
            found.append({"target": text, "value": MANY_S / ours, "least": 1.0})
        if n == 1_000 and gp is not None:
            found.append(
                {"target": f"50 times faster than GP at n={n}, K={k}", "value": gp / ours,
                 "least": 50.0}
            )  # fmt: skip
    repeated = sum(each["repeated"] for each in at_once)
    found.append({"target": "no proposal repeated", "value": float(-repeated), "least": 0.0})
    for check in found:
        check["met"] = "yes" if check["value"] >= check["least"] else "MISSED"
    return found


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--cell", nargs=4, help="for own use: time one sampler in this process")
    options = arguments.parse_args()
    if options.cell:
        path, name, k, n = options.cell
        print(json.dumps(time_asks(Path(path), name, int(k), int(n), options.seed)))
        return
    cells = QUICK_CELLS if options.quick else CELLS
    rows, at_once = [], []
    with tempfile.TemporaryDirectory() as folder:
        for k, sizes in cells.items():
            for n in sizes:
                whole = Path(folder, f"{n}-{k}.db")
                make_study(whole, n, k)
                for name in ASKS:
                    if name == "GPSampler" and n > GP_MOST:
                        continue
                    copy = Path(folder, f"{n}-{k}-{name}.db")
                    shutil.copy(whole, copy)
                    command = [sys.executable, __file__, "--seed", str(options.seed), "--cell"]
                    command += [str(copy), name, str(k), str(n)]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    rows.append(json.loads(done.stdout))
                    print_table(rows[-1:], _COLUMNS)
                    copy.unlink()
                if n == sizes[min(1, len(sizes) - 1)]:
                    at_once.append(ask_at_once(whole, k, options.seed))
    print()
    print_table(rows, _COLUMNS)
    print_table(at_once, {key: "" for key in at_once[0]})
    targets = checks(rows, at_once)
    print_table(targets, {"target": "", "value": ".2f", "least": ".0f", "met": ""})
    write(
        options.out,
        {
            **provenance(),
            "seeds": [options.seed],
            "rows": rows,
            "at_once": at_once,
            "targets": targets,
        },
    )


if __name__ == "__main__":
    main()
