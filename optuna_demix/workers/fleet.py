"""Several workers on one host."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optuna_demix._children import (
    Child,
    Printer,
    ended,
    failure_of,
    tend,
    thread_shares,
    visible_devices,
)
from optuna_demix._process_id import PARENT_ENV, name_of
from optuna_demix._progress import Report
from optuna_demix._stop import StopRequest
from optuna_demix.attributes import FAILURE_ATTR, WORKER_ATTR
from optuna_demix.errors import StorageLostError
from optuna_demix.merging.device_map import STRATEGIES, n_cuda_devices
from optuna_demix.storage.connection import STORAGE_ENV, connect
from optuna_demix.storage.timing import Timing
from optuna_demix.study.attach import check_directions, load_study
from optuna_demix.workers.loop import COMPLETED
from optuna_demix.workers.lost_trials import reclaim_lost_trials
from optuna_demix.workers.progress import n_finished, study_progress
from optuna_demix.workers.reasons import DIED

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig


def run_workers(
    arguments: Sequence[str],
    *,
    config: StudyConfig,
    storage: str,
    study_name: str,
    n_workers: int,
    n_trials: int | None,
    timeout: float | None = None,
    progress: bool,
    device: str = "auto",
) -> int:
    """Run several workers on this host, each with its share of the processor's threads.

    With several CUDA devices each worker sees one of them, in turn, or a group of them where the
    study has a ``scoring.device_map``: see :func:`device_groups`. A worker that is
    killed, for lack of memory or by hand, is replaced.

    Args:
        arguments: Arguments of the ``worker`` command, those that differ left out.
        config: The study's file.
        storage: Storage URL; passed on in the environment, where ``ps`` does not show it.
        study_name: Name of the study.
        n_workers: Number of processes.
        n_trials: Trials the study is to have.
        timeout: Seconds after which no trial is started.
        progress: Show one progress for all.
        device: As given to each worker.

    Returns:
        Exit status: 0 if the study has its trials, whatever happened on the way; else after a
        signal 128 and its number, or that of the first worker which did not end well, or 0.
    """
    # The parent can do without an answer: only workers wait for a storage.
    database = connect(storage, timing=Timing(patience_s=0.0))
    study = load_study(database, study_name=study_name, sampler=None)
    check_directions(study, config)
    reclaim_lost_trials(study)
    printer = Printer(Report(_print, bars=progress), "worker", each=COMPLETED)
    deadline = None if timeout is None else time.monotonic() + timeout
    command = [sys.executable, "-m", "optuna_demix", "worker", *arguments, "--no-progress"]
    asked = config.scoring.device_map if device == "auto" else device
    groups = device_groups(visible_devices(), n_workers, asked)
    if any("," in group for group in groups):
        printer.say(f"workers see CUDA devices {' | '.join(groups)}")
    stop = StopRequest()
    with stop.installed(), stop.serving():
        workers = [
            Child(i, command, environment, printer, lambda: _time_left(deadline))
            for i, environment in enumerate(_environments(storage, n_workers, groups))
        ]
        with (
            ended(workers),
            study_progress(study, n_trials, printer.report if progress else Report()) as shown,
        ):
            tend(
                workers,
                stop,
                printer,
                stopping="stopping after the running trials (again: at once)",
                killed=lambda worker: _after_kill(worker, study, n_trials, printer),
                refresh=None if shown is None else shown.refresh,
            )
    if _has_its_trials(study, n_trials):
        return 0
    return 128 + stop.signum if stop.signum else failure_of(workers)


def _time_left(deadline: float | None) -> list[str] | None:
    """What tells a worker how long it may start trials; ``None`` if that is over."""
    if deadline is None:
        return []
    left = deadline - time.monotonic()
    return [f"--timeout={left:.3f}"] if left > 0 else None


def _after_kill(worker: Child, study: Study, n_trials: int | None, printer: Printer) -> None:
    """Say that a worker was killed, queue its trial again, and replace it."""
    said = worker.death()
    try:
        reclaim_lost_trials(study)
        trials = [
            trial
            for trial in study.get_trials(deepcopy=False)
            if trial.user_attrs.get(WORKER_ATTR) == name_of(worker.process.pid)
        ]
        enough = _has_its_trials(study, n_trials)
    except StorageLostError:
        trials, enough = [], False
    lost = [trial.number for trial in trials if trial.user_attrs.get(FAILURE_ATTR) == DIED]
    said += "".join(f"; the mixture of its trial {number} is queued again" for number in lost)
    if any(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials):
        worker.restarts = 0
    if enough:
        printer.say(f"{said}; the study has its trials")
        worker.give_up()
    else:
        worker.replace(said, fruitless=" without a trial")


def _has_its_trials(study: Study, n_trials: int | None) -> bool:
    if n_trials is None:
        return False
    try:
        return n_finished(study) >= n_trials
    except StorageLostError:
        return False


def is_one_of_several() -> bool:
    """Whether this process was started by :func:`run_workers`, which shows the progress."""
    return PARENT_ENV in os.environ


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def device_groups(
    devices: Sequence[str], n_workers: int, device: str | Mapping[str, str | int] | None
) -> list[str]:
    """Divide the CUDA devices of a host among workers.

    Args:
        devices: Their names.
        n_workers: Number of workers.
        device: What each is to use: a device or a device map.

    Returns:
        ``CUDA_VISIBLE_DEVICES`` of the workers, in turn: one device each; of a device map, as
        many neighbors as it names, or an equal part of all where it leaves the choice open.
        Empty if all workers see all of them: fewer than two, or one device named by its number.
    """
    if len(devices) < 2 or (isinstance(device, str) and device.startswith("cuda:")):
        return []
    if isinstance(device, Mapping):
        size = max(1, n_cuda_devices(device))
        starts = [i * size for i in range(max(1, len(devices) // size))]
        return [",".join(devices[start : start + size]) for start in starts]
    n_groups = min(n_workers, len(devices)) if device in STRATEGIES else len(devices)
    cuts = [round(i * len(devices) / n_groups) for i in range(n_groups + 1)]
    return [",".join(devices[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def _environments(storage: str, n_workers: int, groups: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each worker: its threads, its devices, and the storage."""
    shared = {
        **os.environ,
        STORAGE_ENV: storage,
        PARENT_ENV: str(os.getpid()),
        **thread_shares(n_workers),
    }
    if not groups:
        return [shared] * n_workers
    return [
        {**shared, "CUDA_VISIBLE_DEVICES": groups[index % len(groups)]}
        for index in range(n_workers)
    ]
