"""A study's components, and the arena made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.errors import ComponentError, DemixError

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import Arena, ComponentSet, MergeMethod


def require_merging() -> None:
    """Check that what merges can be imported.

    Raises:
        DemixError: If torch or another package it needs is missing.
    """
    try:
        import optuna_demix.merging  # noqa: F401
    except ImportError as error:
        raise DemixError(
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
        ComponentError: If one is missing, damaged or unlike the others.
        DemixError: If torch or another package that merging needs is missing.
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


def announce(components: ComponentSet, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a progress callback that says once that an arena is being built."""
    said: list[str] = []

    def progress(done: int, total: int) -> None:
        if not said:
            said.append(f"building the arena of {len(components.names)} components")
            say(said[0])

    return progress


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
