"""``optuna-demix report``: plots and a note."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.cli._console import console, say
from optuna_demix.cli._next import next_command, say_next, storage_words
from optuna_demix.cli._options import add_command, add_storage
from optuna_demix.cli._study import open_study
from optuna_demix.storage.connection import STORAGE_ENV

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "report",
        _report,
        "write what a study has found: a page that answers, draws and predicts, and a note",
        "optuna-demix report study.yaml --storage sqlite:///mix.db --study-name mix --dashboard",
    )
    add_storage(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for report.html and report.md; default: run_dir/report, "
        "none with --dashboard",
    )
    parser.add_argument(
        "--dashboard", action="store_true", help="show plots and note in optuna-dashboard"
    )


def _report(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.report.write import write_report

    config = load_study_config(arguments.study)
    space = space_of(config)
    study = open_study(arguments, config)
    folder = Path(arguments.out) if arguments.out else None
    if folder is None and not arguments.dashboard:
        folder = config.run_path / "report"
    with console(shown=True).step("fitting the surrogate and drawing the report"):
        write_report(study, config, space, folder=folder, to_dashboard=arguments.dashboard)
    if folder is not None:
        say(f"wrote {os.path.relpath(folder / 'report.html')} and report.md")
    if arguments.dashboard:
        say("the dashboard shows it on the study's page")
        words = storage_words(arguments)[1:] or [f"${STORAGE_ENV}"]
        say_next(arguments, f"optuna-dashboard {' '.join(map(_quoted, words))}")
        return 0
    options = ["--format", "json"]
    say_next(arguments, next_command(arguments, "export", *options, like="storage study_name"))
    return 0


def _quoted(word: str) -> str:
    return f'"{word}"' if word.startswith("$") else shlex.quote(word)
