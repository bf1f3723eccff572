"""The whole ``optuna-demix`` command: its parser, its errors, its exit status.

Exit status: 0 done, 1 a worker gave up after failures, 2 a mistake that the user can mend,
130 interrupted, 143 asked to stop by SIGTERM: schedulers then know that there is work left.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from optuna_demix.cli import (
    arena,
    check,
    demo,
    export,
    fidelity,
    recommend,
    report,
    serve,
    train,
    worker,
)
from optuna_demix.cli._parser import CommandParser
from optuna_demix.cli._password import hide_password
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence


_DESCRIPTION = """\
Search pre-training data mixtures with merged-model proxies, in an Optuna study.

  optuna-demix demo
  optuna-demix check demix-demo/study.yaml
  optuna-demix train demix-demo/study.yaml
  optuna create-study --storage sqlite:///mix.db --study-name mix \\
      --directions maximize maximize maximize
  optuna-demix worker demix-demo/study.yaml --storage sqlite:///mix.db \\
      --study-name mix --n-trials 64 --n-workers 2
  optuna-demix recommend demix-demo/study.yaml --storage sqlite:///mix.db \\
      --study-name mix --verify
  optuna-dashboard sqlite:///mix.db
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; default: those of the process.

    Returns:
        The exit status.
    """
    if argv is None:
        hide_password()
    parser = build_parser()
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = getattr(arguments, "run", None)
    if run is None:
        parser.print_help()
        return 2
    try:
        return run(arguments)
    except DemixError as error:
        print(f"optuna-demix: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("optuna-demix: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> CommandParser:
    """The parser of the whole command."""
    from optuna_demix import __version__

    parser = CommandParser(prog="optuna-demix", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"optuna-demix {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, check, train, worker, recommend, fidelity, serve, arena, report, export):
        command.add_parser(commands)
    return parser
