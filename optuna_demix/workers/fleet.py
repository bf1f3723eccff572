"""Several workers on one host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optuna_demix.merging.device_map import STRATEGIES, n_cuda_devices
from optuna_demix.storage.connection import STORAGE_ENV, connect
from optuna_demix.storage.timing import Timing
from optuna_demix.study.attach import check_directions, load_study
from optuna_demix.workers.lost_trials import reclaim_lost_trials
from optuna_demix.workers.process_id import PARENT_ENV
from optuna_demix.workers.progress import progress_bar
from optuna_demix.workers.signals import StopRequest

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_workers(
    arguments: Sequence[str],
    *,
    config: StudyConfig,
    storage: str,
    study_name: str,
    n_workers: int,
    n_trials: int | None,
    progress: bool,
    device: str = "auto",
) -> int:
    """Run several workers on this host, each with its share of the processor's threads.

    With several CUDA devices each worker sees one of them, in turn, or a group of them where the
    study has a ``scoring.device_map``: see :func:`device_groups`.

    Args:
        arguments: Arguments of the ``worker`` command, those that differ left out.
        config: The study's file.
        storage: Storage URL; passed on in the environment, where ``ps`` does not show it.
        study_name: Name of the study.
        n_workers: Number of processes.
        n_trials: Trials the study is to have.
        progress: Show one bar for all.
        device: As given to each worker.

    Returns:
        Exit status: that of the first worker which did not end well, or 0; after a signal 128
        and its number.
    """
    # The bar can do without an answer: only workers wait for a storage.
    database = connect(storage, timing=Timing(patience_s=0.0))
    study = load_study(database, study_name=study_name, sampler=None)
    check_directions(study, config)
    reclaim_lost_trials(study)
    command = [sys.executable, "-m", "optuna_demix", "worker", *arguments, "--no-progress"]
    printer = _Printer()
    asked = config.scoring.device_map if device == "auto" else device
    groups = device_groups(_visible_devices(), n_workers, asked)
    if any("," in group for group in groups):
        printer.say(f"workers see CUDA devices {' | '.join(groups)}")
    stop, signum = StopRequest(), 0
    with stop.installed(), stop.serving():
        processes = [_start(command, each) for each in _environments(storage, n_workers, groups)]
        readers = [
            threading.Thread(target=printer.follow, args=(process, i), daemon=True)
            for i, process in enumerate(processes)
        ]
        for reader in readers:
            reader.start()
        try:
            with progress_bar(study, n_trials, shown=progress) as refresh:
                while None in [process.poll() for process in processes]:
                    if stop.event.wait(0.5):
                        signum = stop.signum
                        stop.event.clear()  # so that a second request is passed on as well
                        printer.say("stopping after the running trials (again: at once)")
                        _terminate(processes)
                    refresh()
        finally:
            for process in processes:
                process.wait()
            for reader in readers:
                reader.join()
    codes = [process.returncode for process in processes]
    if signum:
        return 128 + signum
    for index, code in enumerate(codes):
        if code < 0:
            name = signal.Signals(-code).name
            printer.say(f"[worker {index}] was ended by {name}; others repeat its trial")
    return next((code for code in codes if code > 0), 1 if any(codes) else 0)


def is_one_of_several() -> bool:
    """Whether this process was started by :func:`run_workers`, which shows the progress."""
    return PARENT_ENV in os.environ


class _Printer:
    """Prints lines of several workers, the same complaint of all of them once."""

    def __init__(self) -> None:
        self._complaints: set[str] = set()
        self._lock = threading.Lock()

    def follow(self, process: subprocess.Popen[str], index: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            if "error:" in text:
                with self._lock:
                    known = text in self._complaints
                    self._complaints.add(text)
                if not known:
                    self.say(text)
            elif text:
                self.say(f"[worker {index}] {text}")

    def say(self, line: str) -> None:
        from tqdm import tqdm

        with self._lock:
            tqdm.write(line, file=sys.stderr)


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
    threads = str(max(1, _n_cores() // n_workers))
    shared = {
        **os.environ,
        STORAGE_ENV: storage,
        PARENT_ENV: str(os.getpid()),
        **dict.fromkeys(_THREAD_VARIABLES, threads),
    }
    if not groups:
        return [shared] * n_workers
    return [
        {**shared, "CUDA_VISIBLE_DEVICES": groups[index % len(groups)]}
        for index in range(n_workers)
    ]


def _n_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _visible_devices() -> list[str]:
    """CUDA devices by what ``CUDA_VISIBLE_DEVICES`` or the driver says, torch not imported."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A session of its own: Ctrl-C reaches the parent alone, which asks politely.
        start_new_session=True,
    )


def _terminate(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
