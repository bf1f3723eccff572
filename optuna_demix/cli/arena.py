"""``optuna-demix arena``: the file that holds the components of a study."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from optuna_demix.cli._console import console
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_no_progress
from optuna_demix.errors import DemixError, InputError

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import Arena


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    help_line = "build, show, verify or remove the file that holds a study's components"
    parser = commands.add_parser(
        "arena",
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}. Workers build it by themselves.",
        epilog="example:\n  optuna-demix arena build study.yaml",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    study = "study.yaml"
    for name, run, help_line in (
        ("build", _arena_build, "build the arena, or go on with a build that was killed"),
        ("info", _arena_info, "show what the arena holds and whether it is up to date"),
        ("verify", _arena_verify, "compare all of the arena with its checksums"),
        ("clear", _arena_clear, "remove the arena; the components stay"),
    ):
        action = add_command(actions, name, run, help_line, f"optuna-demix arena {name} {study}")
        if name in ("build", "verify"):
            add_no_progress(action)


def _arena_build(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.study.components import build_arena, open_components

    config = load_study_config(arguments.study)
    report = console(shown=not arguments.no_progress)
    components = open_components(config, report=report)
    arena = build_arena(config, components, report=report)
    print(f"{os.path.relpath(arena.path)}: {arena.nbytes / 1e9:.2f} GB, key {arena.key[:16]}")
    say_next(arguments, next_command(arguments, "check"))
    return 0


def _arena_info(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.study.components import merge_method, open_components

    config = load_study_config(arguments.study)
    arena = _open_arena(config)
    dtype = str(arena.dtype).removeprefix("torch.")
    rows = "components and their base" if arena.preparation.base else "components"
    print(f"{os.path.relpath(arena.path)}: {arena.nbytes / 1e9:.2f} GB, key {arena.key[:16]}")
    print(f"  {len(arena.names)} {rows}: {', '.join(arena.names)}")
    print(f"  {arena.n_parameters:,} parameters each, {dtype}, in ", end="")
    print(f"{arena.n_blocks:,} blocks of {arena.layout.block_size:,}")
    if arena.preparation.deltas is not None:
        print(f"  components {arena.preparation.kept}")
    if arena.preparation.sparsity is not None:
        rule = arena.preparation.sparsity
        print(f"  task vectors sparsified by {rule.rule}, density {rule.density:g}")
    try:
        method, merging = merge_method(config), config.merging
        changed = arena.differences(open_components(config), method=method, dtype=merging.dtype)
    except DemixError as error:
        print(f"  cannot be compared with the study's components: {error}")
        return 0
    print(f"  {'stale: ' + '; '.join(changed) if changed else 'up to date'}")
    say_next(arguments, next_command(arguments, "arena build" if changed else "arena verify"))
    return 0


def _arena_verify(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config

    arena = _open_arena(load_study_config(arguments.study))
    report = console(shown=not arguments.no_progress)
    with report.step("verifying the arena", unit="block", total=arena.n_blocks) as step:
        arena.verify(progress=step.update)
    print(f"{os.path.relpath(arena.path)}: all {arena.n_blocks:,} blocks are as built")
    say_next(arguments, next_command(arguments, "check"))
    return 0


def _arena_clear(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.study.components import require_merging

    path = load_study_config(arguments.study).arena_path
    require_merging()
    from optuna_demix.merging import Arena

    freed = Arena.clear(path)
    print(f"{os.path.relpath(path)}: {freed / 1e9:.2f} GB freed" if freed else "nothing to remove")
    say_next(arguments, next_command(arguments, "arena build"))
    return 0


def _open_arena(config: StudyConfig) -> Arena:
    from optuna_demix.study.components import require_merging

    if not config.arena_path.exists():
        raise InputError(
            f"{config.source}: there is no arena at {config.arena_path}; build it with "
            "'optuna-demix arena build', or start a worker, which does"
        )
    require_merging()
    from optuna_demix.merging import Arena

    return Arena.open(config.arena_path)
