"""Several processes of one host that train a study's models, a GPU each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from optuna_demix._children import (
    Child,
    Printer,
    ended,
    failure_of,
    tend,
    thread_shares,
    visible_devices,
)
from optuna_demix._process_id import PARENT_ENV
from optuna_demix._progress import Report
from optuna_demix._stop import StopRequest
from optuna_demix.config import StudyConfig
from optuna_demix.errors import InputError
from optuna_demix.training._checks import check_settings, settings_of
from optuna_demix.training._ledger import RETRAIN_ENV, to_retrain
from optuna_demix.training._plan import plan_models, selected_runs
from optuna_demix.training._processes import process_count


def train_parallel(
    config: StudyConfig,
    arguments: Sequence[str],
    *,
    n_processes: int,
    only: Sequence[str] | None = None,
    references: int = 0,
    retrain: Sequence[str] = (),
    device: str = "auto",
) -> int:
    """Train several models of a study at once on this host.

    The processes share the models as commands on several hosts do, and the processor's threads
    evenly. With CUDA devices each sees one of them, in turn. One that is killed is replaced.

    Args:
        config: The study.
        arguments: Arguments of the ``train`` command, those that differ left out.
        n_processes: Number of processes; no more than models are started.
        only: As :func:`train_study` takes it.
        references: The same.
        retrain: The same.
        device: The same.

    Returns:
        Exit status: 0 if all models are there; else after a signal 128 and its number, or that
        of the first process which did not end well.

    Raises:
        ConfigError: If the study has models that cannot be trained.
        InputError: If this process was started by ``torchrun``.
    """
    if process_count() > 1:
        raise InputError("--parallel starts processes by itself; leave out torchrun")
    training = settings_of(config)
    check_settings(config, training)
    runs = selected_runs(config, plan_models(config, training, references, None), only, retrain)
    n_processes = max(1, min(n_processes, len(runs)))
    devices = [] if device == "cpu" else visible_devices()
    shared = {
        **os.environ,
        PARENT_ENV: str(os.getpid()),
        # Only this process knows what was there before any of them began.
        RETRAIN_ENV: json.dumps(to_retrain(runs, retrain)),
        "PYTHONUNBUFFERED": "1",
        **thread_shares(n_processes),
    }
    command = [sys.executable, "-m", "optuna_demix", "train", *arguments, "--no-progress"]
    printer = Printer(Report(_print), "train")
    stop = StopRequest()
    with stop.installed(), stop.serving():
        children = [
            Child(i, command, shared | _device_of(i, devices), printer) for i in range(n_processes)
        ]
        with ended(children):
            tend(
                children,
                stop,
                printer,
                stopping="stopping after a step and its checkpoint (again: at once)",
                killed=lambda child: child.replace(child.death()),
            )
    if any(child.code == 0 for child in children):
        return 0  # a process ends well when all models are there
    return 128 + stop.signum if stop.signum else failure_of(children)


def _device_of(index: int, devices: Sequence[str]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {}


def _print(line: str) -> None:
    print(line, file=sys.stderr if "error:" in line else sys.stdout, flush=True)
