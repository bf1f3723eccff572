"""``optuna-demix check``: can a study run as its file describes it?"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command
from optuna_demix.errors import DemixError
from optuna_demix.storage.connection import STORAGE_ENV

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging.footprint import DeviceFootprint, Footprint


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "check",
        _check,
        "check a study's file, its components' headers and its tasks, without loading a model or "
        "downloading anything",
        "optuna-demix check study.yaml",
    )
    parser.add_argument(
        "--no-tasks", action="store_true", help="do not look the lm-eval tasks up (faster)"
    )
    parser.add_argument(
        "--components",
        action="store_true",
        help="read every weight of components that another trainer has made, and print the lines "
        "of study.yaml that name them",
    )
    parser.add_argument(
        "--schema",
        action=_PrintSchema,
        nargs=0,
        help="print the JSON schema of study.yaml, for editors, and exit; needs no file",
    )


class _PrintSchema(argparse.Action):
    """Prints the schema and exits, as ``--version`` does: a file need not be given."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        """Print it."""
        from optuna_demix.config import study_schema

        print(json.dumps(study_schema(), indent=2, ensure_ascii=False))
        parser.exit()


def _check(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.config.study import objective_names
    from optuna_demix.study.attach import create_command
    from optuna_demix.study.components import check_components, footprints_of, require_merging
    from optuna_demix.study.search import sampler_of

    config = load_study_config(arguments.study)
    space = space_of(config)
    sampler_of(config, space)
    print(f"{config.source.name}: {len(space.components)} components, ", end="")
    print(f"{len(space.datasets)} datasets, objectives: {', '.join(objective_names(config))}")
    low, high = space.min_weights(), space.max_weights()
    for i, name in enumerate(space.components):
        print(
            f"  {name}: prior {space.prior[i]:.4f}, weight {low[i]:.4f} to {high[i]:.4f}, ", end=""
        )
        print(_where(config, name))
    components = None
    try:
        require_merging()
    except DemixError as error:
        print(f"  components not checked: {error}")
    else:
        components = check_components(config)
    if components is not None:
        n_found, n_all = len(components.names), len(space.components)
        which = "the" if n_found == n_all else f"{n_found} of {n_all}"
        print(f"  {which} components fit together, {components.n_parameters:,} parameters each")
        _print_memory(footprints_of(config, components))
    if arguments.components:
        from optuna_demix.cli._returned import print_returned

        print_returned(config)
    if not arguments.no_tasks:
        from optuna_demix.study.evaluation import check_benchmarks

        notes = check_benchmarks(config, components)
        n_tasks = sum(map(len, config.capabilities.values()))
        print(f"  {n_tasks} benchmarks found")
        print(*(f"  {note}\n" for note in notes), sep="", end="")
    if config.training is not None and not all(map(_is_there, _trained_paths(config))):
        say_next(arguments, next_command(arguments, "train"))
        return 0
    storage = None if STORAGE_ENV in os.environ else "sqlite:///mix.db"
    given = [] if storage is None else ["--storage", storage]
    say_next(
        arguments,
        create_command(config, storage=storage, study_name="mix"),
        next_command(arguments, "worker", *given, "--study-name", "mix", "--n-trials", "64"),
    )
    return 0


def _trained_paths(config: StudyConfig) -> list[Path]:
    return [config.component_path(n) for n, c in config.components.items() if c.hub is None]


def _is_there(path: Path) -> bool:
    return (path / "config.json").is_file()


def _print_memory(found: dict[str, Footprint]) -> None:
    """Tell what workers need: on one device in two lines, over several in one for each."""
    arena = _size(next(iter(found.values())).arena)
    lines = [f"  arena: {arena} on disk, mapped and shared by all workers of a host"]
    for words, footprint in found.items():
        if words != "one device":
            lines.append(f"  each worker over {words} (forward passes come on top):")
            lines += [f"    {each.device}: {_needs(each)}" for each in footprint.devices]
            continue
        (one,) = footprint.devices
        lines += [
            f"  each worker: {_size(one.model)} for the model and, on a GPU, {arena} for a copy "
            "of the arena",
            f"    or, where that does not fit, {_size(one.buffers)} of buffers and as much pinned "
            "host memory;",
            "    forward passes come on top",
        ]
    print(*lines, sep="\n")


def _needs(device: DeviceFootprint) -> str:
    model = f"{_size(device.model)} for the model"
    if device.device.startswith("cpu"):  # merges read the mapped file itself
        return model
    copy, buffers = _size(device.arena), _size(device.buffers)
    return f"{model}, {copy} for its part of the arena or {buffers} of buffers (as much pinned)"


def _size(number: float) -> str:
    """Bytes in words: ``16.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.2f} TB"


def _where(config: StudyConfig, component: str) -> str:
    hub = config.components[component].hub
    if hub is not None:
        return f"fetched from {hub} by the first worker"
    path = config.component_path(component)
    state = "found" if _is_there(path) else "not there yet"
    return f"{os.path.relpath(path)} ({state})"
