"""Several workers on one host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optuna_demix._progress import Report
from optuna_demix.attributes import FAILURE_ATTR, WORKER_ATTR
from optuna_demix.errors import StorageLostError
from optuna_demix.merging.device_map import STRATEGIES, n_cuda_devices
from optuna_demix.storage.connection import STORAGE_ENV, connect
from optuna_demix.storage.timing import Timing
from optuna_demix.study.attach import check_directions, load_study
from optuna_demix.workers.loop import COMPLETED
from optuna_demix.workers.lost_trials import reclaim_lost_trials
from optuna_demix.workers.process_id import PARENT_ENV, name_of
from optuna_demix.workers.progress import n_finished, study_progress
from optuna_demix.workers.reasons import DIED
from optuna_demix.workers.signals import StopRequest

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import StudyConfig

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


_MAX_RESTARTS = 3
"""Times that a worker is replaced before one of its processes has finished a trial."""

_POLL_S = 0.5


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
    printer = _Printer(Report(_print, bars=progress))
    deadline = None if timeout is None else time.monotonic() + timeout
    command = [sys.executable, "-m", "optuna_demix", "worker", *arguments, "--no-progress"]
    asked = config.scoring.device_map if device == "auto" else device
    groups = device_groups(_visible_devices(), n_workers, asked)
    if any("," in group for group in groups):
        printer.say(f"workers see CUDA devices {' | '.join(groups)}")
    stop = StopRequest()
    with stop.installed(), stop.serving():
        workers = [
            _Worker(i, command, environment, deadline, printer)
            for i, environment in enumerate(_environments(storage, n_workers, groups))
        ]
        try:
            with study_progress(
                study, n_trials, printer.report if progress else Report()
            ) as shown:
                while any([worker.runs() for worker in workers]):
                    if stop.event.wait(_POLL_S):
                        stop.event.clear()  # so that a second request is passed on as well
                        printer.say("stopping after the running trials (again: at once)")
                        for worker in workers:
                            worker.terminate()
                    for worker in [each for each in workers if each.was_killed()]:
                        if stop.signum:
                            worker.give_up()
                        else:
                            _after_kill(worker, study, n_trials, printer)
                    if shown:
                        shown.refresh()
        finally:
            for worker in workers:
                worker.wait()
    if _has_its_trials(study, n_trials):
        return 0
    if stop.signum:
        return 128 + stop.signum
    codes = [worker.code for worker in workers]
    return next((code for code in codes if code > 0), 1 if any(codes) else 0)


def _after_kill(worker: _Worker, study: Study, n_trials: int | None, printer: _Printer) -> None:
    """Say that a worker was killed, queue its trial again, and replace it."""
    name = signal.Signals(-worker.code).name
    doubt = ", perhaps for lack of memory" if -worker.code == signal.SIGKILL else ""
    said = f"worker {worker.index} (process {worker.process.pid}) was ended by {name}{doubt}"
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
    elif worker.restarts == _MAX_RESTARTS:
        printer.say(f"error: {said}; given up, after {_MAX_RESTARTS} restarts without a trial")
        worker.give_up()
    elif worker.start():
        worker.restarts += 1
        printer.say(f"{said}; started again ({worker.restarts} of at most {_MAX_RESTARTS} times)")
    else:
        printer.say(f"{said}; the time is over")


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


class _Worker:
    """One of several workers: a process, and those that replace it.

    Args:
        index: Its number.
        command: What it runs.
        environment: Where.
        deadline: Monotonic time after which it starts no trial.
        printer: Prints what it says.
    """

    process: subprocess.Popen[str]

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        deadline: float | None,
        printer: _Printer,
    ) -> None:
        self.index = index
        self.restarts = 0
        self._command, self._environment = command, environment
        self._deadline = deadline
        self._printer = printer
        self._given_up = False
        self._readers: list[threading.Thread] = []
        self.start()

    @property
    def code(self) -> int:
        """Exit status of its last process, once that has ended."""
        return self.process.returncode or 0

    def start(self) -> bool:
        """Start a process; returns whether there was time left for one."""
        command = list(self._command)
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._given_up = True
                return False
            command.append(f"--timeout={left:.3f}")
        self.process = subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A session of its own: Ctrl-C reaches the parent alone, which asks politely.
            start_new_session=True,
        )
        reader = threading.Thread(
            target=self._printer.follow, args=(self.process, self.index), daemon=True
        )
        reader.start()
        self._readers.append(reader)
        return True

    def give_up(self) -> None:
        """Replace it no more."""
        self._given_up = True

    def runs(self) -> bool:
        """Whether its process runs, or is still to be replaced."""
        return self.process.poll() is None or self.was_killed()

    def was_killed(self) -> bool:
        """Whether its process was ended by a signal that is no request to stop."""
        asked = (signal.SIGINT, signal.SIGTERM)
        ended = self.process.poll() is not None and not self._given_up
        return ended and self.code < 0 and -self.code not in asked

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end, and until all that it has said is printed."""
        self.process.wait()
        for reader in self._readers:
            reader.join()


class _Printer:
    """Prints lines of several workers, what all of them say once.

    Args:
        report: Where they are printed.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def follow(self, process: subprocess.Popen[str], index: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            with self._lock:
                known = text in self._known
                self._known.add(text)
            if text and (not known or COMPLETED in text):
                self._print(text if "error:" in text else f"[worker {index}] {text}")

    def say(self, line: str) -> None:
        self._print(f"optuna-demix: {line}")

    def _print(self, line: str) -> None:
        with self._lock:
            self.report(line)


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
