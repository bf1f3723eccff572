"""``optuna-demix worker``: evaluate trials of a shared study."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from optuna_demix.cli._console import quiet_optuna, say
from optuna_demix.cli._next import next_command, say_next, storage_words
from optuna_demix.cli._options import (
    add_command,
    add_device,
    add_no_progress,
    add_storage,
    positive_number,
    seconds,
    whole_number,
)

if TYPE_CHECKING:
    from optuna_demix.cli._options import Commands

_OWN = ("storage", "n_workers", "timeout", "no_progress")
"""Options that the processes of ``--n-workers`` do not get: the storage goes into their
environment, a process that replaces another one gets the time that is left, and one progress
shows them all."""


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "worker",
        _worker,
        "evaluate trials of a shared study",
        "optuna-demix worker study.yaml --storage sqlite:///mix.db --study-name mix --n-trials 64",
    )
    add_storage(parser)
    parser.add_argument(
        "--n-trials",
        type=positive_number,
        metavar="N",
        help="stop when the study has N trials, those of other workers included",
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", help="start no trial after S seconds"
    )
    parser.add_argument(
        "--until-converged",
        action="store_true",
        help="stop when further trials are expected to gain less than their noise",
    )
    parser.add_argument(
        "--n-workers", type=positive_number, default=1, metavar="W", help="processes on this host"
    )
    parser.add_argument("--seed", type=whole_number, help="instead of the study's own seed")
    parser.add_argument(
        "--stop-grace",
        type=seconds,
        metavar="S",
        help="after SIGTERM release the trial if it is not done in S seconds (default: 20)",
    )
    add_device(parser)
    parser.add_argument(
        "--no-dashboard", action="store_true", help="write no plots and note for optuna-dashboard"
    )
    add_no_progress(parser)
    parser.set_defaults(parser=parser)


def _worker(arguments: argparse.Namespace) -> int:
    from optuna_demix.config import load_study_config
    from optuna_demix.storage.connection import storage_url
    from optuna_demix.workers.fleet import is_one_of_several, run_workers
    from optuna_demix.workers.run import STOP_GRACE_S, run_worker

    config = load_study_config(arguments.study)
    storage = storage_url(arguments.storage)
    quiet_optuna(quiet=not arguments.no_progress or is_one_of_several())
    if arguments.n_workers > 1:
        status = run_workers(
            arguments.parser.words(arguments, leave_out=_OWN),
            config=config,
            storage=storage,
            study_name=arguments.study_name,
            n_workers=arguments.n_workers,
            n_trials=arguments.n_trials,
            timeout=arguments.timeout,
            progress=not arguments.no_progress,
            device=arguments.device,
        )
        _say_next(arguments, goes_on=status > 128)
        return status
    report = run_worker(
        config,
        storage=storage,
        study_name=arguments.study_name,
        n_trials=arguments.n_trials,
        timeout=arguments.timeout,
        until_converged=arguments.until_converged,
        device=arguments.device,
        seed=arguments.seed,
        stop_grace=STOP_GRACE_S if arguments.stop_grace is None else arguments.stop_grace,
        dashboard=not arguments.no_dashboard,
        progress=not arguments.no_progress,
        report=say,
    )
    if not report.healthy:
        print(f"optuna-demix: error: {report}", file=sys.stderr)
        return 1
    say(str(report))
    _say_next(arguments, goes_on=report.signum > 0)
    return 128 + report.signum if report.signum else 0


def _say_next(arguments: argparse.Namespace, *, goes_on: bool) -> None:
    """The same command again after a stop, else the recommendation."""
    if not goes_on:
        like = "storage study_name device"
        say_next(arguments, next_command(arguments, "recommend", "--verify", like=like))
        return
    words = arguments.parser.words(arguments, leave_out=("storage",))
    say_next(arguments, shlex.join(["optuna-demix", "worker", *words, *storage_words(arguments)]))
