"""``optuna-demix train``: the base, the components, references."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from optuna_demix.cli._next import next_command, say_next
from optuna_demix.cli._options import (
    add_command,
    add_no_progress,
    add_references,
    positive_number,
)

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "train",
        _train,
        "train the base, the components and, on request, references",
        "optuna-demix train study.yaml --references 8\n"
        "  optuna-demix train study.yaml --parallel 8\n"
        "  torchrun --nproc-per-node 2 -m optuna_demix train study.yaml",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="NAME", help="models to train; default: all"
    )
    add_references(parser)
    parser.add_argument(
        "--retrain",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="models to train again",
    )
    parser.add_argument(
        "--parallel",
        type=positive_number,
        default=1,
        metavar="N",
        help="models trained at once on this host, a GPU each",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu or cuda; torchrun uses several GPUs"
    )
    add_no_progress(parser)
    parser.set_defaults(parser=parser)


def _train(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.training import TrainingInterrupted, train_parallel, train_study

    config = load_study_config(arguments.study)
    if arguments.parallel > 1:
        status = train_parallel(
            config,
            arguments.parser.words(arguments, leave_out=("parallel", "no_progress")),
            n_processes=arguments.parallel,
            only=arguments.only,
            references=arguments.references,
            retrain=arguments.retrain,
            device=arguments.device,
        )
        if status:
            return status
    else:
        try:
            train_study(
                config,
                only=arguments.only,
                references=arguments.references,
                retrain=arguments.retrain,
                device=arguments.device,
                progress=not arguments.no_progress,
            )
        except TrainingInterrupted as error:
            print(f"optuna-demix: {error}", file=sys.stderr)
            return 128 + error.signum
    name = "fidelity" if arguments.references else "check"
    if int(os.environ.get("RANK", "0")) == 0:
        say_next(arguments, next_command(arguments, name))
    return 0
