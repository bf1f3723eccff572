"""Workers: each takes trials from the shared study, merges, scores, and reports.

A worker keeps nothing that is not in the storage: kill it, start another, and the search goes on.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix._config_space import space_of
from optuna_demix.errors import ComponentError, DemixError, TaskError
from optuna_demix.study import (
    check_directions,
    claim,
    connect,
    load_study,
    pruner_of,
    sampler_of,
)

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from optuna_demix.config import RacingConfig, StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.objective import MixtureObjective

WORKER_ATTR = "demix:worker"
"""User attribute of a trial: host, process namespace and process that evaluate it."""

_MAX_FAILURES = 3  # in a row: then something is wrong here, not with the mixture
_PARENT_ENV = "OPTUNA_DEMIX_PARENT"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class WorkerReport:
    """What one worker has done.

    Attributes:
        complete: Trials it completed.
        pruned: Trials that lost their race.
        failed: Trials that failed on it.
        stopped: Why it stopped, in words.
        healthy: Whether it stopped of its own accord and not for failures.
    """

    complete: int
    pruned: int
    failed: int
    stopped: str
    healthy: bool


class StopRequest:
    """SIGINT and SIGTERM as a request: the first ends after the trial, the second at once."""

    def __init__(self) -> None:
        self.event = threading.Event()

    @contextmanager
    def installed(self) -> Iterator[StopRequest]:
        """Catch the signals while in the block; a no-op outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _note(self, signum: int, frame: Any) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt
        self.event.set()


def build_objective(
    config: StudyConfig,
    space: MixtureSpace,
    *,
    device: str = "auto",
    report: Callable[[str], None] | None = None,
) -> tuple[MixtureObjective, dict[str, Any]]:
    """Open the components, build the arena, load the tasks.

    Args:
        config: The study.
        space: Its mixture.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<i>``.
        report: Called with a line before each long step.

    Returns:
        The objective, and the fingerprint of all that its scores depend on.

    Raises:
        DemixError: If a component, task or setting cannot be used.
    """
    say = report or (lambda line: None)
    try:
        import torch

        from optuna_demix.merging import Arena, ComponentSet, LiveModel
    except ImportError as error:
        raise ComponentError(
            f"merging needs {error.name or 'torch'}; pip install 'optuna-demix[models]'"
        ) from None
    from optuna_demix.objective import MixtureObjective, capabilities_of
    from optuna_demix.scoring import HarnessScorer

    if device == "auto" and config.scoring.device_map is not None:
        device = config.scoring.device_map
    chosen = _device(device, torch.cuda.is_available(), torch.cuda.device_count())
    trust = config.scoring.trust_remote_code
    components = ComponentSet.open(_component_paths(config, say), trust_remote_code=trust)
    config.arena_path.parent.mkdir(parents=True, exist_ok=True)
    arena = Arena.build(components, config.arena_path, dtype=config.merging.dtype)
    scoring = config.scoring
    model = LiveModel(
        arena,
        device=chosen,
        dtype=scoring.dtype,
        method=config.merging.method,
        trust_remote_code=trust,
    )
    say("loading tasks")
    if scoring.shared_prefixes:
        model.merge([1 / len(model.names)] * len(model.names))  # it is tried on a real proxy
    scorer = HarnessScorer(
        _benchmarks(config),
        model.model,
        model.tokenizer,
        include_path=config.include_path,
        batch_size=scoring.rows,
        max_length=scoring.max_length,
        limit=scoring.limit,
        num_fewshot=scoring.num_fewshot,
        seed=scoring.seed,
        confirm_run_unsafe_code=scoring.confirm_run_unsafe_code,
        mixed_precision_dtype=scoring.mixed_precision_dtype,
        shared_prefixes=scoring.shared_prefixes,
        blocks=scoring.racing.blocks if scoring.racing else None,
    )
    weights = config.capability_weights if config.objective == "composite" else None
    objective = MixtureObjective(
        space,
        model,
        scorer,
        capabilities_of(config),
        weights=weights,
        racing=_reported(scoring.racing),
    )
    fingerprint = {
        "space": space.fingerprint(),
        "capabilities": capabilities_of(config),
        "objective": weights or "capabilities",
        "components": components.digests(
            cache=arena.path.with_name(f"{arena.path.name}.digests.json")
        ),
        "merging": {"method": config.merging.method, "dtype": str(arena.dtype)},
        "scoring": {"plan": scorer.plan_digest(), "device": chosen.split(":")[0]},
    }
    return objective, fingerprint


def check_benchmarks(config: StudyConfig) -> None:
    """Check that tasks and metrics of a study exist, without loading a dataset.

    Raises:
        TaskError: Naming the first task or metric that cannot be scored.
    """
    from optuna_demix.scoring import check_tasks

    try:
        problems = check_tasks(
            _benchmarks(config),
            include_path=config.include_path,
            confirm_run_unsafe_code=config.scoring.confirm_run_unsafe_code,
        )
    except ImportError as error:
        raise TaskError(
            f"scoring needs {error.name or 'lm_eval'}; pip install 'optuna-demix[models]'"
        ) from None
    if problems:
        raise TaskError(f"{config.source}: {'; '.join(str(problem) for problem in problems)}")


def run_worker(
    config: StudyConfig,
    *,
    storage: str,
    study_name: str,
    n_trials: int | None = None,
    timeout: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    progress: bool = True,
    report: Callable[[str], None] | None = None,
) -> WorkerReport:
    """Work on a study until it has its trials, the time is over, or a signal comes.

    Args:
        config: The study's file.
        storage: Database URL.
        study_name: Name of the study, made with ``optuna create-study``.
        n_trials: Trials the *study* is to have, those of other workers included; ``None`` for no
            end.
        timeout: Seconds after which no trial is started.
        device: Where the model lives.
        seed: Instead of the study's own seed; workers may share it.
        progress: Show a bar on stderr.
        report: Called with each line for the user.

    Raises:
        DemixError: If study, components and tasks do not fit; nothing was written then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with StopRequest().installed() as stop:
        space = space_of(config)
        sampler = sampler_of(config, space, seed=seed)
        study = load_study(
            connect(storage), study_name=study_name, sampler=sampler, pruner=pruner_of(config)
        )
        check_directions(study, config)
        objective, fingerprint = build_objective(config, space, device=device, report=report)
        claim(study, config, fingerprint, objective.layout())
        take_back_lost_trials(study)
        with progress_bar(study, n_trials, shown=progress) as refresh:
            return _work(study, objective, n_trials, deadline, stop, refresh)


def _work(
    study: Study,
    objective: MixtureObjective,
    n_trials: int | None,
    deadline: float | None,
    stop: StopRequest,
    refresh: Callable[[], None],
) -> WorkerReport:
    from optuna import TrialPruned
    from optuna.trial import TrialState

    from optuna_demix.objective import FAILURE_ATTR

    outcomes: list[TrialState] = []
    parent = os.environ.get(_PARENT_ENV)

    def evaluate(trial: Trial) -> Any:
        trial.set_user_attr(WORKER_ATTR, _own_name())
        if n_trials is not None and _n_taken(study, before=trial.number) >= n_trials:
            # Two workers asked for the last trial at the same moment.
            trial.set_user_attr(FAILURE_ATTR, "surplus: the study has its trials")
            raise _Surplus
        try:
            return objective(trial)
        except KeyboardInterrupt:
            trial.set_user_attr(FAILURE_ATTR, "interrupted")
            raise _Interrupted from None
        except TrialPruned:
            raise
        except Exception as error:
            line = str(error).strip().split("\n")[0]
            trial.set_user_attr(FAILURE_ATTR, f"{type(error).__name__}: {line}"[:500])
            raise

    def after(study: Study, trial: FrozenTrial) -> None:
        reason = str(trial.user_attrs.get(FAILURE_ATTR, ""))
        if not reason.startswith("surplus"):
            outcomes.append(trial.state)
        refresh()

    def summary(stopped: str, *, healthy: bool = True) -> WorkerReport:
        complete, pruned = map(outcomes.count, (TrialState.COMPLETE, TrialState.PRUNED))
        failed = len(outcomes) - complete - pruned
        return WorkerReport(complete, pruned, failed, stopped, healthy)

    while True:
        if stop.event.is_set():
            return summary("asked to stop")
        if n_trials is not None and _n_taken(study) >= n_trials:
            return summary(f"the study has its {n_trials} trials")
        if deadline is not None and time.monotonic() >= deadline:
            return summary("the time is over")
        if parent is not None and os.getppid() != int(parent):
            return summary("the process that started it is gone")
        study.optimize(evaluate, n_trials=1, catch=(Exception,), callbacks=[after])
        last = outcomes[-_MAX_FAILURES:]
        if len(last) == _MAX_FAILURES and all(state == TrialState.FAIL for state in last):
            reason = _last_failure(study)
            return summary(f"{_MAX_FAILURES} trials in a row failed: {reason}", healthy=False)


class _Surplus(Exception):
    """One trial more than was asked for."""


class _Interrupted(Exception):
    """A second signal came while a trial was running."""


def take_back_lost_trials(study: Study) -> int:
    """Give back running trials of processes of this host that are dead; returns their number.

    Trials of other hosts are given back by their missing heartbeat, after the grace period. The
    mixture of a lost trial is queued again.
    """
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    from optuna_demix.objective import FAILURE_ATTR

    retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=False)
    lost = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        place, _, process = str(trial.user_attrs.get(WORKER_ATTR, "")).rpartition(" ")
        if place != _own_place() or _may_live(process):
            continue
        storage = study._storage
        try:
            storage.set_trial_user_attr(trial._trial_id, FAILURE_ATTR, "its worker died")
            if storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
                retry(study, trial)
                lost += 1
        except RuntimeError:
            continue  # another worker was quicker
    return lost


def run_workers(
    arguments: Sequence[str],
    *,
    config: StudyConfig,
    storage: str,
    study_name: str,
    n_workers: int,
    n_trials: int | None,
    progress: bool,
) -> int:
    """Run several workers on this host, each with its share of the processor's threads.

    With several CUDA devices each worker sees one of them, in turn.

    Args:
        arguments: Arguments of the ``worker`` command, those that differ left out.
        config: The study's file.
        storage: Database URL; handed over in the environment, where ``ps`` does not show it.
        study_name: Name of the study.
        n_workers: Number of processes.
        n_trials: Trials the study is to have.
        progress: Show one bar for all.

    Returns:
        Exit status: that of the first worker which did not end well, or 0.
    """
    study = load_study(connect(storage), study_name=study_name, sampler=None)
    check_directions(study, config)
    take_back_lost_trials(study)
    threads = max(1, _n_cores() // n_workers)
    devices = _visible_devices()
    command = [sys.executable, "-m", "optuna_demix", "worker", *arguments, "--no-progress"]
    printer = _Printer()
    processes = []
    with StopRequest().installed() as stop:
        for index in range(n_workers):
            environment = {
                **os.environ,
                "OPTUNA_STORAGE": storage,
                _PARENT_ENV: str(os.getpid()),
                **{name: str(threads) for name in _THREAD_VARIABLES},
            }
            if len(devices) > 1:
                environment["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
            processes.append(
                # A session of its own: Ctrl-C reaches the parent alone, which asks politely.
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
            )
        readers = [
            threading.Thread(target=printer.follow, args=(process, i), daemon=True)
            for i, process in enumerate(processes)
        ]
        for reader in readers:
            reader.start()
        try:
            with progress_bar(study, n_trials, shown=progress) as refresh:
                while any(process.poll() is None for process in processes):
                    if stop.event.wait(0.5):
                        stop.event.clear()  # so that a second request is passed on as well
                        printer.say("stopping after the running trials (again: at once)")
                        _signal_all(processes)
                    refresh()
        finally:
            for process in processes:
                process.wait()
            for reader in readers:
                reader.join()
    codes = [process.returncode for process in processes]
    return next((code for code in codes if code != 0), 0)


def is_one_of_several() -> bool:
    """Whether this process was started by :func:`run_workers`, which shows the progress."""
    return _PARENT_ENV in os.environ


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


@contextmanager
def progress_bar(
    study: Study, n_trials: int | None, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A bar of the study's finished trials, of all workers; yields a function to refresh it."""
    from optuna.trial import TrialState
    from tqdm import tqdm

    def count(state: TrialState) -> int:
        return study._storage.get_n_trials(study._study_id, state)

    with tqdm(
        total=n_trials,
        initial=count(TrialState.COMPLETE) + count(TrialState.PRUNED),
        desc=study.study_name,
        unit="trial",
        disable=not shown,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:

        def refresh() -> None:
            if not shown:
                return
            pruned, failed = count(TrialState.PRUNED), count(TrialState.FAIL)
            bar.update(count(TrialState.COMPLETE) + pruned - bar.n)
            others = {"pruned": pruned, "failed": failed}
            bar.set_postfix({name: n for name, n in others.items() if n}, refresh=False)

        yield refresh
        refresh()


def _reported(racing: RacingConfig | None) -> Literal["block", "mean"] | None:
    """What a pruner wants to be told after each block."""
    if racing is None:
        return None
    return "block" if racing.pruner == "wilcoxon" else "mean"


def _component_paths(config: StudyConfig, say: Callable[[str], None]) -> dict[str, Path]:
    """Directory of each component, downloaded first where it lies on a hub."""
    paths = {}
    for name, component in config.components.items():
        if component.hub is None:
            paths[name] = config.component_path(name)
            if not paths[name].is_dir():
                raise ComponentError(
                    f"{config.source}: components.{name}: no directory {paths[name]}; train it "
                    "with 'optuna-demix train', or correct 'path'"
                )
            continue
        paths[name] = _download(config, name, say)
    return paths


def _download(config: StudyConfig, name: str, say: Callable[[str], None]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    component = config.components[name]
    assert component.hub is not None
    say(f"fetching component {name} from {component.hub}")
    folder = component.subfolder
    try:
        local = snapshot_download(
            component.hub,
            repo_type=component.hub_type,
            revision=component.revision,
            # Weights in safetensors and what belongs to them; never a pickle.
            allow_patterns=[
                f"{folder}/{kind}" if folder else kind
                for kind in ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
            ],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        line = str(error).strip().split("\n")[0]
        raise ComponentError(
            f"{config.source}: components.{name}: cannot fetch {component.hub} ({line}); check "
            "the name and the connection, or download it and give its 'path'"
        ) from None
    return Path(local, folder) if folder else Path(local)


def _benchmarks(config: StudyConfig) -> list[Any]:
    from optuna_demix.scoring import Benchmark

    return [
        Benchmark(
            task=benchmark.task,
            metric=benchmark.metric,
            name=benchmark.label,
            num_fewshot=benchmark.num_fewshot,
            limit=benchmark.limit,
            higher_is_better=benchmark.higher_is_better,
        )
        for benchmarks in config.capabilities.values()
        for benchmark in benchmarks
    ]


def _device(device: str, has_cuda: bool, n_devices: int) -> str:
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise DemixError(f"--device {device!r} is unknown; use auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and not has_cuda:
        raise DemixError(f"--device {device}: PyTorch sees no CUDA device here; use --device cpu")
    if kind == "cuda" and index and int(index) >= n_devices:
        raise DemixError(f"--device {device}: there are only {n_devices} CUDA devices")
    return device


def _n_taken(study: Study, *, before: int | None = None) -> int:
    """Number of trials that are done or being worked on, those with a lower number alone."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    trials = study.get_trials(deepcopy=False, states=states)
    return sum(before is None or trial.number < before for trial in trials)


def _last_failure(study: Study) -> str:
    from optuna.trial import TrialState

    from optuna_demix.objective import FAILURE_ATTR

    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    reasons = [str(t.user_attrs[FAILURE_ATTR]) for t in failed if FAILURE_ATTR in t.user_attrs]
    return reasons[-1] if reasons else "see the log"


def _own_name() -> str:
    return f"{_own_place()} {os.getpid()}"


def _own_place() -> str:
    """Where a process id means what it means here: containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        marks = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        marks = ""  # not Linux: the host name has to do
    scope = hashlib.sha256(marks.encode()).hexdigest()[:8]
    return f"{socket.gethostname()} {scope}"


def _may_live(process: str) -> bool:
    """Whether a process of this place may still live; only a plain no counts as dead."""
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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


def _signal_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
