"""``optuna-demix import``: runs that were made elsewhere, as finished trials."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.cli._console import console, say
from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_storage, pair
from optuna_demix.cli._study import open_study
from optuna_demix.errors import InputError

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "import",
        _import,
        "take runs that were made elsewhere from a table into a study, as finished trials",
        "optuna-demix import study.yaml --storage sqlite:///mix.db --study-name mix "
        "--table mixtures.csv --scores-table losses.csv --key index "
        "--weights 'train_{name}' --scores 'metric/{name}_loss' --losses",
    )
    add_storage(parser)
    parser.add_argument(
        "--table",
        required=True,
        metavar="FILE",
        help=".csv, .tsv or .parquet with one row for each run",
    )
    parser.add_argument(
        "--scores-table", metavar="FILE", help="a second table, where it holds the scores"
    )
    parser.add_argument("--key", metavar="COLUMN", help="column that both tables have in common")
    parser.add_argument(
        "--weights",
        default="{name}",
        metavar="PATTERN",
        help="columns of the weights, with {name} for each dataset; default: {name}",
    )
    parser.add_argument(
        "--of",
        choices=("shares", "weights"),
        default="shares",
        help="what weights are: data shares of datasets (default), or merge weights of components",
    )
    parser.add_argument(
        "--scores",
        default="{name}",
        metavar="PATTERN",
        help="columns of the scores, with {name} for each benchmark, or else each objective; "
        "default: {name}",
    )
    parser.add_argument(
        "--rename",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=OTHER",
        help="what a dataset, component or benchmark of the study is called in the table",
    )
    parser.add_argument("--losses", action="store_true", help="lower scores are better")


def _import(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.config.space import space_of
    from optuna_demix.config.study import objective_names
    from optuna_demix.study.importing import (
        Columns,
        add_trials,
        join,
        read_table,
        summary,
        trials_of,
    )

    if (arguments.scores_table is None) != (arguments.key is None):
        raise InputError("--scores-table and --key belong together; give both or neither")
    config = load_study_config(arguments.study)
    space = space_of(config)
    columns = Columns(
        weights=arguments.weights,
        scores=arguments.scores,
        names=dict(pair("--rename", item, "NAME=OTHER") for item in arguments.rename),
        of=arguments.of,
        is_loss=arguments.losses,
    )
    table = read_table(Path(arguments.table))
    if arguments.scores_table is not None:
        table = join(table, read_table(Path(arguments.scores_table)), arguments.key)
    trials = trials_of(table, columns, config, space)
    study = open_study(arguments, config)
    if study.metric_names is None:
        study.set_metric_names(objective_names(config))
    n_added = add_trials(study, trials, config, console(shown=True))
    say(summary(n_added, len(trials), table.path))
    say_next(arguments, next_command(arguments, "recommend", like="storage study_name"))
    return 0
