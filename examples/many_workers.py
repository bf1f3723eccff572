"""Your own objective in several processes that share one study, as the worker command does it.

``work`` adds to ``study.optimize`` what long searches need: the study gets exactly its number of
trials, trials of dead workers are repeated, workers wait for a lost connection, and SIGTERM
releases a trial. You may kill any of the processes while it runs.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from pathlib import Path

import optuna

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.storage import connect
from optuna_demix.workers import StopRequest, work

SPACE = MixtureSpace(["web", "code", "math"])
N_TRIALS = 12  # of the study, not of each worker


def objective(trial: optuna.Trial) -> float:
    """One trial; replace it by your own evaluation."""
    w = SPACE.suggest(trial)
    return -((w["web"] - 0.5) ** 2) - (w["code"] - 0.3) ** 2


def worker(url: str) -> None:
    """One process."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with StopRequest(grace_s=20).installed() as stop:
        storage = connect(url, give_up=stop.urgent)
        # The same seed for all: randomness comes from the seed and the trial's number.
        sampler = DemixSampler(SPACE, seed=0)
        study = optuna.load_study(study_name="mix", storage=storage, sampler=sampler)
        report = work(study, objective, n_trials=N_TRIALS, stop=stop)
    print(f"{report.complete} trials here; {report.stopped}", flush=True)


def main(url: str | None = None) -> None:
    """Make the study and start three workers."""
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"sqlite:///{Path(folder, 'mix.db')}"
        optuna.create_study(storage=url, study_name="mix", direction="maximize")
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=worker, args=(url,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        study = optuna.load_study(study_name="mix", storage=url)
        print(f"best of {len(study.trials)}: {study.best_value:.5f} {study.best_params}")


if __name__ == "__main__":
    main(*sys.argv[1:])
