"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, TypeAlias

from optuna_demix.cli._parser import CommandParser
from optuna_demix.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    Commands: TypeAlias = argparse._SubParsersAction[CommandParser]
    """What a parser's subcommands are added to."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_line: str,
    example: str,
    *,
    takes_study: bool = True,
) -> CommandParser:
    """Add a command with its help.

    Args:
        commands: The commands so far.
        name: Its name.
        run: What it does; returns the exit status.
        help_line: What it does, in one line.
        example: A command line to copy.
        takes_study: Whether its first argument is a study's file.
    """
    parser = commands.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.",
        epilog=f"example:\n  {example}",
    )
    if takes_study:
        parser.add_argument("study", metavar="STUDY.yaml", help="the study's file")
    parser.set_defaults(run=run)
    return parser


def add_references(parser: argparse.ArgumentParser) -> None:
    """Add the number of references that are trained beside the components."""
    parser.add_argument(
        "--references",
        type=whole_number,
        default=0,
        metavar="N",
        help="references at sampled mixtures",
    )


def pair(option: str, text: str, form: str) -> tuple[str, str]:
    """Both sides of ``NAME=OTHER``.

    Raises:
        InputError: If one is missing, naming the option and the form that it takes.
    """
    name, equals, other = text.partition("=")
    if not (name and equals and other):
        raise InputError(f"{option} {text!r} is not {form}")
    return name, other


def add_storage(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that name a study in a storage.

    Args:
        parser: The command's parser.
        required: Whether the command cannot do without one.
    """
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database, grpc://host:port, journal.log, or @FILE that holds it; default: "
        "OPTUNA_STORAGE",
    )
    parser.add_argument("--study-name", metavar="NAME", required=required, help="study in it")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the device that scores."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")


def add_no_progress(parser: argparse.ArgumentParser) -> None:
    """Add the option that keeps everything but the result from the terminal."""
    parser.add_argument(
        "--no-progress", action="store_true", help="show no progress and no next command"
    )


def positive_number(text: str) -> int:
    """Read a whole number of at least 1."""
    value = whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def whole_number(text: str) -> int:
    """Read a whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return value


def seconds(text: str) -> float:
    """Read a time in seconds, positive and finite."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text!r}")
    return value
