"""Workers: each takes trials from the shared study, merges, scores, and reports.

A worker keeps nothing that is not in the storage: kill it, start another, and the search goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix._code import code_versions
from optuna_demix._config_space import space_of
from optuna_demix._fleet import is_one_of_several, progress_bar, run_workers
from optuna_demix._lease import WORKER_ATTR, keeps_heartbeats, own_name, take_back_lost_trials
from optuna_demix._loop import StopRequest, WorkerReport, work
from optuna_demix._storage import Secrets, Timing
from optuna_demix.errors import ComponentError, DemixError, TaskError
from optuna_demix.report.write import reporter_of
from optuna_demix.study import (
    check_directions,
    claim,
    connect,
    load_study,
    pruner_of,
    sampler_of,
    terminator_of,
    warm_start_of,
)

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.config import RacingConfig, StudyConfig
    from optuna_demix.merging import Arena, ComponentSet, MergeMethod
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.objective import MixtureObjective

__all__ = [
    "STOP_GRACE_S",
    "WORKER_ATTR",
    "StopRequest",
    "WorkerReport",
    "build_objective",
    "check_benchmarks",
    "is_one_of_several",
    "own_name",
    "progress_bar",
    "run_worker",
    "run_workers",
    "take_back_lost_trials",
    "work",
]

STOP_GRACE_S = 20.0
"""Seconds that a trial has after SIGTERM; schedulers kill 30 s after it, as a rule."""


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
    components = open_components(config, report=say)
    import torch

    from optuna_demix.merging import LiveModel
    from optuna_demix.objective import MixtureObjective, capabilities_of
    from optuna_demix.scoring import HarnessScorer

    if device == "auto" and config.scoring.device_map is not None:
        device = config.scoring.device_map
    chosen = _device(device, torch.cuda.is_available(), torch.cuda.device_count())
    trust = config.scoring.trust_remote_code
    arena = build_arena(config, components, progress=_announce(components, say))
    method = merge_method(config)
    scoring = config.scoring
    model = LiveModel(
        arena, device=chosen, dtype=scoring.dtype, method=method, trust_remote_code=trust
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
    merging: dict[str, Any] = {"method": method.name, "dtype": str(arena.dtype)}
    if method.parameters:
        merging["parameters"] = dict(method.parameters)
    if arena.base_digest is not None:
        merging["base"] = arena.base_digest
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
        "merging": merging,
        "scoring": {"plan": scorer.plan_digest(), "device": chosen.split(":")[0]},
        "code": code_versions(),
    }
    return objective, fingerprint


def require_merging() -> None:
    """Check that what merges can be imported.

    Raises:
        ComponentError: If torch or another package it needs is missing.
    """
    try:
        import optuna_demix.merging  # noqa: F401
    except ImportError as error:
        raise ComponentError(
            f"merging needs {error.name or 'torch'}; pip install 'optuna-demix[models]'"
        ) from None


def merge_method(config: StudyConfig) -> MergeMethod:
    """Return the study's merge method with its parameters."""
    require_merging()
    from optuna_demix.merging import find_method

    return find_method(config.merging.method, config.merging.parameters)


def open_components(
    config: StudyConfig, *, report: Callable[[str], None] | None = None
) -> ComponentSet:
    """Open a study's components, and its base where the merge method needs it.

    Args:
        config: The study.
        report: Called with a line before each download.

    Raises:
        ComponentError: If one is missing, damaged or unlike the others, or torch is missing.
    """
    require_merging()
    from optuna_demix.merging import ComponentSet

    base = None
    if merge_method(config).preparation.base:
        base = config.base_path
        if not base.is_dir():
            raise ComponentError(
                f"{config.source}: base: no directory {base}; merge method "
                f"{config.merging.method!r} needs the base model: train it with 'optuna-demix "
                "train', or correct 'base'"
            )
    paths = _component_paths(config, report or (lambda line: None))
    trust = config.scoring.trust_remote_code
    return ComponentSet.open(paths, base=base, trust_remote_code=trust)


def build_arena(
    config: StudyConfig,
    components: ComponentSet,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Arena:
    """Return a study's arena, built first unless it is there and up to date.

    Args:
        config: The study.
        components: Its components.
        progress: Called with (blocks done, blocks in all) while it is being built.

    Raises:
        ComponentError: If a component cannot be merged, or the disk is full.
    """
    from optuna_demix.merging import Arena

    return Arena.build(
        components,
        config.arena_path,
        method=merge_method(config),
        dtype=config.merging.dtype,
        progress=progress,
    )


def _announce(components: ComponentSet, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a progress callback that says once that an arena is being built."""
    said: list[str] = []

    def progress(done: int, total: int) -> None:
        if not said:
            said.append(f"building the arena of {len(components.names)} components")
            say(said[0])

    return progress


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
    until_converged: bool = False,
    device: str = "auto",
    seed: int | None = None,
    stop_grace: float | None = STOP_GRACE_S,
    timing: Timing | None = None,
    dashboard: bool = True,
    progress: bool = True,
    report: Callable[[str], None] | None = None,
) -> WorkerReport:
    """Work on a study until it has its trials, the time is over, or a signal comes.

    Args:
        config: The study's file.
        storage: Storage URL, see :func:`~optuna_demix.study.connect`.
        study_name: Name of the study, made with ``optuna create-study``.
        n_trials: Trials the *study* is to have, those of other workers included; ``None`` for no
            end.
        timeout: Seconds after which no trial is started.
        until_converged: Stop when further trials are expected to gain less than their noise.
        device: Where the model lives.
        seed: Instead of the study's own seed; workers may share it.
        stop_grace: Seconds that a trial has after SIGTERM before it is handed back; ``None`` for
            as long as it takes.
        timing: Of signs of life and of patience with the storage.
        dashboard: Show plots and a note in ``optuna-dashboard``, where that is installed and
            the study's file does not say otherwise.
        progress: Show a bar on stderr.
        report: Called with each line for the user.

    Raises:
        DemixError: If study, components and tasks do not fit; nothing was written then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    timing = timing or Timing()
    say = report or (lambda line: None)
    with StopRequest(grace_s=stop_grace).installed() as stop:
        space = space_of(config)
        database = connect(storage, timing=timing, give_up=stop.urgent)
        earlier = warm_start_of(config, database)
        sampler = sampler_of(config, space, seed=seed, warm_start=earlier)
        study = load_study(
            database, study_name=study_name, sampler=sampler, pruner=pruner_of(config)
        )
        check_directions(study, config)
        if not keeps_heartbeats(study):
            say(
                "Optuna keeps no heartbeats in this storage: each worker keeps a lease on its "
                f"trial, renewed every {timing.heartbeat_s} s, lost after {timing.grace_s} s"
            )
        objective, fingerprint = build_objective(config, space, device=device, report=report)
        claim(study, config, fingerprint, objective.layout())
        reporter = reporter_of(study, config, space, to_dashboard=dashboard, say=report)
        terminator = terminator_of(config, space) if until_converged else None

        def is_over(study: Study) -> str | None:
            if terminator is not None and terminator.should_terminate(study):
                return "further trials are expected to gain less than their noise"
            return None

        with progress_bar(study, n_trials, shown=progress) as refresh:
            done = work(
                study,
                reporter.watching(objective),
                n_trials=n_trials,
                deadline=deadline,
                is_over=is_over,
                stop=stop,
                refresh=reporter.then(refresh),
                timing=timing,
                redact=Secrets(storage).mask,
            )
        if done.healthy and not stop.event.is_set():
            reporter.finish()
        return done


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
