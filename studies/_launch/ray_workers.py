r"""Workers of one study as Ray tasks, one GPU each; ``pip install ray``.

    OPTUNA_STORAGE=postgresql://user@host/db \
        python ray_workers.py STUDY.yaml --study-name mix --n-trials 2000 --n-workers 64

Ray places the workers, gives each a GPU and restarts those that die. If you run the program again,
it continues with the study as it is.
"""

from __future__ import annotations

import argparse
from typing import Any

import ray

from optuna_demix.storage.connection import storage_url


def evaluate_trials(study_file: str, storage: str, study_name: str, n_trials: int) -> str:
    """One worker; returns what it has done."""
    from optuna_demix.config import load_study_config
    from optuna_demix.workers.run import run_worker

    report = run_worker(
        load_study_config(study_file),
        storage=storage,
        study_name=study_name,
        n_trials=n_trials,
        progress=False,
    )
    if not report.healthy:
        raise RuntimeError(report.stopped)
    return f"{report.complete} trials completed, {report.failed} failed; {report.stopped}"


def main(argv: list[str] | None = None) -> list[str]:
    """Start the workers and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="the study's file, at the same path on every node")
    parser.add_argument("--study-name", required=True)
    parser.add_argument("--n-trials", type=int, required=True, help="of the whole study")
    parser.add_argument("--n-workers", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=1, help="of each worker; 0 for the CPU")
    parser.add_argument("--address", help="of the Ray cluster; default: the one Ray finds")
    arguments = parser.parse_args(argv)
    # The URL travels as an argument of the tasks: what stands in a runtime environment is shown
    # by Ray's dashboard.
    storage = storage_url(None)
    ray.init(address=arguments.address, ignore_reinit_error=True)
    options: dict[str, Any] = {"num_gpus": arguments.gpus, "max_retries": -1}
    task = ray.remote(**options)(evaluate_trials)
    job = (arguments.study, storage, arguments.study_name, arguments.n_trials)
    done: list[str] = ray.get([task.remote(*job) for _ in range(arguments.n_workers)])
    for line in done:
        print(line)
    return done


if __name__ == "__main__":
    main()
