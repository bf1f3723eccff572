"""A study's components, and the arena made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._progress import Report
from optuna_demix._wording import counted
from optuna_demix.errors import ComponentError, DemixError

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import Arena, ComponentSet, MergeMethod
    from optuna_demix.merging.footprint import Footprint


def require_merging(report: Report | None = None) -> None:
    """Check that what merges can be imported.

    Args:
        report: Where it is said; a cold disk takes its time.

    Raises:
        DemixError: If torch or another package it needs is missing.
    """
    known = "optuna_demix.merging.live.live_model" in sys.modules
    say = Report() if report is None or known else report
    try:
        with say.step("importing torch and transformers"):
            # Not the package alone, which hands its names on lazily.
            import optuna_demix.merging.checkpoints.components
            import optuna_demix.merging.live.live_model  # noqa: F401
    except ImportError as error:
        raise DemixError(
            f"merging needs {error.name or 'torch'}; pip install 'optuna-demix[models]'"
        ) from None


def merge_method(config: StudyConfig) -> MergeMethod:
    """Return the study's merge method with its parameters."""
    require_merging()
    from optuna_demix.merging import find_method

    merging = config.merging
    return find_method(merging.method, merging.parameters, delta_dtype=merging.delta_dtype)


def open_components(
    config: StudyConfig, *, report: Callable[[str], None] | None = None
) -> ComponentSet:
    """Open a study's components, and its base where the merge method or an adapter needs it.

    Args:
        config: The study.
        report: Called with a line before each download.

    Raises:
        ComponentError: If one is missing, damaged or unlike the others.
        DemixError: If torch or another package that merging needs is missing.
    """
    require_merging()
    return _open(config, _component_paths(config, Report.of(report)))


def check_components(config: StudyConfig) -> ComponentSet | None:
    """Refuse components that a worker would refuse, from headers and configurations alone.

    Those on a hub, and those that are still to be trained, are left out.

    Args:
        config: The study.

    Returns:
        Those that are there; ``None`` if none is.

    Raises:
        ComponentError: If one is missing, damaged or unlike the others, or comes without a
            tokenizer that can be loaded, or the disk has no room for the arena.
        DemixError: If torch or another package that merging needs is missing.
    """
    require_merging()
    from optuna_demix.merging.arena.room import check_room
    from optuna_demix.merging.checkpoints.tokenization import require_tokenizer

    trained = config.training is not None
    paths = {
        name: config.component_path(name)
        for name, component in config.components.items()
        if component.hub is None and not (trained and not config.component_path(name).exists())
    }
    for name, path in paths.items():
        _check_there(config, name, path)
    if not paths:
        return None
    if trained and not config.base_path.is_dir() and _base_user(config, paths) is not None:
        return None
    components = _open(config, paths)
    require_tokenizer(components.standard, trust_remote_code=config.scoring.trust_remote_code)
    check_room(
        components, config.arena_path, method=merge_method(config), dtype=config.merging.dtype
    )
    return components


def footprints_of(config: StudyConfig, components: ComponentSet) -> dict[str, Footprint]:
    """Return the memory that a study's workers need, for the devices that they would get.

    Args:
        config: The study.
        components: Some of its components at least: all have the same tensors.

    Returns:
        By the devices in words: one device; those of a map; those that are here and, where a
        device map leaves the choice open but no two are here, two and four equal ones.

    Raises:
        ComponentError: If the device map does not fit the model, or the model these devices.
    """
    from optuna_demix.merging._dtypes import as_dtype
    from optuna_demix.merging.device_map import is_spread
    from optuna_demix.merging.footprint import plan_footprint
    from optuna_demix.merging.live.placement import find_placement, usable_bytes

    dtype = as_dtype(config.merging.dtype or components.dtype)
    model_dtype = as_dtype(config.scoring.dtype or dtype)
    device_map = config.scoring.device_map
    choices: dict[str, dict[int, int] | None] = {"one device": None}
    if isinstance(device_map, dict):
        choices = {"its devices": None}
    elif is_spread(device_map):
        here = usable_bytes()
        choices = {f"the {len(here)} devices here": here}
        if len(here) < 2:
            choices = {f"{n} equal devices": dict.fromkeys(range(n), 2**62) for n in (2, 4)}
    return {
        words: plan_footprint(
            components.tensors,
            len(config.components),
            method=merge_method(config),
            dtype=dtype,
            model_dtype=model_dtype,
            placement=find_placement(
                device_map if is_spread(device_map) else "cpu",
                components.skeleton,
                model_dtype,
                available=available,
            ),
        )
        for words, available in choices.items()
    }


def base_of(config: StudyConfig, paths: Mapping[str, Path]) -> Path | None:
    """Directory of the base, where the merge method or an adapter needs it.

    Args:
        config: The study.
        paths: Directories of components.

    Raises:
        ComponentError: If it is needed and not there.
    """
    user = _base_user(config, paths)
    if user is None:
        return None
    if not config.base_path.is_dir():
        raise ComponentError(
            f"{config.source}: base: no directory {config.base_path}; {user}: train it with "
            "'optuna-demix train', or correct 'base'"
        )
    return config.base_path


def _base_user(config: StudyConfig, paths: Mapping[str, Path]) -> str | None:
    """What needs the base model, in words."""
    from optuna_demix.merging.checkpoints.adapters import is_adapter

    if config.merging.delta_dtype is not None:
        return "merging.delta_dtype needs the base model"
    if merge_method(config).preparation.base:
        return f"merge method {config.merging.method!r} needs the base model"
    for name, path in paths.items():
        if is_adapter(path):
            return f"component {name!r} is an adapter, which needs the base model"
    return None


def _open(config: StudyConfig, paths: dict[str, Path]) -> ComponentSet:
    from optuna_demix.merging import ComponentSet

    chosen = config.merging.config_of
    if chosen is not None and chosen not in paths:  # among some of them any other will do
        chosen = next(iter(paths))
    return ComponentSet.open(
        paths,
        base=base_of(config, paths),
        config_of=chosen,
        trust_remote_code=config.scoring.trust_remote_code,
    )


def build_arena(
    config: StudyConfig,
    components: ComponentSet,
    *,
    report: Callable[[str], None] | None = None,
) -> Arena:
    """Return a study's arena, built first unless it is there and up to date.

    Args:
        config: The study.
        components: Its components.
        report: Where progress is shown.

    Raises:
        ComponentError: If a component cannot be merged, or the disk is full.
    """
    return arena_at(
        config.arena_path, config, components, method=merge_method(config), report=report
    )


def arena_at(
    path: Path,
    config: StudyConfig,
    components: ComponentSet,
    *,
    method: MergeMethod | str,
    report: Callable[[str], None] | None = None,
) -> Arena:
    """The same in another file, for another merge method."""
    from optuna_demix.merging import Arena

    what = f"arena of {counted(len(components.names), 'component')}"
    with Report.of(report).step(what, unit="block") as step:
        return Arena.build(
            components, path, method=method, dtype=config.merging.dtype, progress=step.update
        )


def _component_paths(config: StudyConfig, report: Report) -> dict[str, Path]:
    """Directory of each component, downloaded first where it lies on a hub."""
    paths = {}
    for name, component in config.components.items():
        if component.hub is None:
            paths[name] = config.component_path(name)
            _check_there(config, name, paths[name])
            continue
        paths[name] = _download(config, name, report)
    return paths


def _check_there(config: StudyConfig, name: str, path: Path) -> None:
    if not path.exists():
        raise ComponentError(
            f"{config.source}: components.{name}: no directory {path}; train it with "
            "'optuna-demix train', or correct 'path'"
        )


def _download(config: StudyConfig, name: str, report: Report) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    component = config.components[name]
    assert component.hub is not None
    folder = component.subfolder
    # Weights in safetensors and what belongs to them; never a pickle, and code only if trusted.
    kinds = ["*.safetensors", "*.json", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.jinja"]
    if config.scoring.trust_remote_code:
        kinds.append("*.py")
    try:
        with report.step(f"fetching component {name} from {component.hub}"), _quiet_hub(report):
            local = snapshot_download(
                component.hub,
                repo_type=component.hub_type,
                revision=component.revision,
                allow_patterns=[f"{folder}/{kind}" if folder else kind for kind in kinds],
            )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        line = str(error).strip().split("\n")[0]
        raise ComponentError(
            f"{config.source}: components.{name}: cannot fetch {component.hub} ({line}); check "
            "the name and the connection, or download it and give its 'path'"
        ) from None
    return Path(local, folder) if folder else Path(local)


@contextmanager
def _quiet_hub(report: Report) -> Iterator[None]:
    """Leave the hub's own bars, one for each file, to a terminal that shows bars."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if report.shows_bars or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
