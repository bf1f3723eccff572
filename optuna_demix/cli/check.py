"""``optuna-demix check``: can a study run as its file describes it?"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix._wording import byte_size as _size
from optuna_demix.cli._console import console, write_output
from optuna_demix.cli._next import next_command, say_next, search_commands
from optuna_demix.cli._options import add_command, positive_number, whole_number
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    from optuna_demix.bill import Bill, Gpu
    from optuna_demix.cli._options import Commands
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import ComponentSet
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
    bill = parser.add_argument_group("what the study will cost")
    bill.add_argument(
        "--bill",
        action="store_true",
        help="estimate tokens, FLOPs, memory, trials an hour and GPU-hours; builds the requests "
        "of tasks whose data are on this host, which may take minutes",
    )
    bill.add_argument(
        "--gpu",
        metavar="NAME",
        help="on which GPU: A100, H100, H200, … or TFLOP/s,GB/s,GB; default: H100",
    )
    bill.add_argument("--gpus", metavar="N", type=positive_number, help="how many; default: 1")
    bill.add_argument(
        "--n-trials", metavar="N", type=positive_number, help="trials of the search; default: 64"
    )
    bill.add_argument(
        "--references", metavar="N", type=whole_number, help="reference models; default: 0"
    )
    bill.add_argument(
        "--json", metavar="FILE", help="write the bill as JSON too; - prints only JSON"
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
    gpu = _gpu(arguments)
    if arguments.json == "-":
        with contextlib.redirect_stdout(io.StringIO()):  # a bill alone
            config, components = _examine(arguments)
        assert gpu is not None
        print(_bill(arguments, gpu, config, components).to_json())
        return 0
    config, components = _examine(arguments)
    if gpu is not None:
        from optuna_demix.bill.words import bill_lines

        bill = _bill(arguments, gpu, config, components)
        if arguments.json:
            write_output(Path(arguments.json), bill.to_json() + "\n")
        print(*bill_lines(bill), sep="\n")
    _say_what_is_next(arguments, config)
    return 0


def _examine(arguments: argparse.Namespace) -> tuple[StudyConfig, ComponentSet | None]:
    """Check everything and tell it; the components that are there."""
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.config.study import objective_names
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
    return config, components


def _gpu(arguments: argparse.Namespace) -> Gpu | None:
    """The GPU to reckon with, if a bill is asked for, and be it by one of its options."""
    options = ("gpu", "gpus", "n_trials", "references", "json")
    if not arguments.bill and all(getattr(arguments, name) is None for name in options):
        return None
    from optuna_demix.bill import find_gpu

    return find_gpu(arguments.gpu or "H100")


def _bill(
    arguments: argparse.Namespace, gpu: Gpu, config: StudyConfig, components: ComponentSet | None
) -> Bill:
    from optuna_demix.bill import estimate_bill

    return estimate_bill(
        config,
        gpu,
        n_gpus=arguments.gpus or 1,
        n_trials=arguments.n_trials or 64,
        references=arguments.references or 0,
        count_tasks=not arguments.no_tasks,
        components=components,
        report=console(shown=True),
    )


def _say_what_is_next(arguments: argparse.Namespace, config: StudyConfig) -> None:
    if config.training is not None and not all(map(_is_there, _trained_paths(config))):
        say_next(arguments, next_command(arguments, "train"))
        return
    say_next(arguments, *search_commands(arguments, config))


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


def _where(config: StudyConfig, component: str) -> str:
    hub = config.components[component].hub
    if hub is not None:
        return f"fetched from {hub} by the first worker"
    path = config.component_path(component)
    state = "found" if _is_there(path) else "not there yet"
    return f"{os.path.relpath(path)} ({state})"
