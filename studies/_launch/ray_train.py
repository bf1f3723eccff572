r"""The models of a study as Ray tasks, one GPU each; ``pip install ray``.

    python ray_train.py STUDY.yaml --n-processes 8

Ray places the tasks, gives each a GPU and restarts those that die. The study's ``run_dir`` must
lie on a disk that all nodes share. If you run the program again, it goes on with what is there.
"""

from __future__ import annotations

import argparse
from typing import Any

import ray


def train_models(study_file: str, references: int) -> str:
    """Take models until all are there; returns what was trained here."""
    from optuna_demix.config import load_study_config
    from optuna_demix.training import train_study

    models = train_study(load_study_config(study_file), references=references, progress=False)
    trained = [model.name for model in models if not model.skipped]
    return f"trained {', '.join(trained) or 'nothing'}; all {len(models)} models are there"


def main(argv: list[str] | None = None) -> list[str]:
    """Start the tasks and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="the study's file, at the same path on every node")
    parser.add_argument("--references", type=int, default=0, help="at sampled mixtures")
    parser.add_argument("--n-processes", type=int, required=True, help="no more than models")
    parser.add_argument("--gpus", type=float, default=1, help="of each task; 0 for the CPU")
    parser.add_argument("--address", help="of the Ray cluster; default: the one Ray finds")
    arguments = parser.parse_args(argv)
    ray.init(address=arguments.address, ignore_reinit_error=True)
    options: dict[str, Any] = {"num_gpus": arguments.gpus, "max_retries": -1}
    task = ray.remote(**options)(train_models)
    job = (arguments.study, arguments.references)
    done: list[str] = ray.get([task.remote(*job) for _ in range(arguments.n_processes)])
    for line in done:
        print(line)
    return done


if __name__ == "__main__":
    main()
