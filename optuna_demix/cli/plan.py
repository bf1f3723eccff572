"""``optuna-demix plan``: the models of a study, for another trainer to make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import add_command, add_references, pair, positive_number

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "plan",
        _plan,
        "write configurations and a launch script to train base, components and references in "
        "another trainer",
        "optuna-demix plan study.yaml --for megatron --gpus 8 "
        "--paths '/data/{dataset}_text_document'",
    )
    parser.add_argument(
        "--for",
        dest="trainer",
        required=True,
        metavar="TRAINER",
        help="torchtitan, megatron, megatron-bridge, olmo-core, nanotron, llm-foundry or hf",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: plan/TRAINER in the study's run_dir"
    )
    add_references(parser)
    parser.add_argument(
        "--paths",
        metavar="TEMPLATE",
        help="where the data lies in the trainer's format, with {dataset} for each name; default: "
        "the study's files, if they are of it",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=PATH",
        help="where the data of one dataset lies, instead",
    )
    parser.add_argument(
        "--gpus", type=positive_number, default=1, metavar="N", help="GPUs of a run; default: 1"
    )
    parser.add_argument(
        "--micro-batch",
        type=positive_number,
        default=1,
        metavar="N",
        help="sequences that a GPU holds at a time; default: 1",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that were changed by hand"
    )


def _plan(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.training.trainers import PlanOptions, write_plan

    config = load_study_config(arguments.study)
    options = PlanOptions(
        out=arguments.out,
        references=arguments.references,
        paths=arguments.paths,
        data=dict(pair("--data", item, "NAME=PATH") for item in arguments.data),
        gpus=arguments.gpus,
        micro_batch=arguments.micro_batch,
        force=arguments.force,
    )
    folder = write_plan(config, arguments.trainer, options)
    say_next(
        arguments,
        f"bash {folder / 'launch.sh'}",
        next_command(arguments, "check", "--components"),
    )
    return 0
