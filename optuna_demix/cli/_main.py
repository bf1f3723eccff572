"""The whole ``optuna-demix`` command: its parser, its errors, its exit status.

Exit status: 0 done, 1 a worker gave up after failures, 2 a mistake that the user can mend,
130 interrupted, 143 asked to stop by SIGTERM: schedulers then know that there is work left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna_demix.cli import (
    arena,
    check,
    demo,
    export,
    fidelity,
    import_runs,
    init,
    plan,
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

  optuna-demix init --data data --base base --tasks hellaswag gsm8k

example, with a study.yaml of three capabilities:
  optuna-demix check study.yaml
  optuna-demix train study.yaml
  optuna create-study --storage sqlite:///mix.db --study-name mix \\
      --directions maximize maximize maximize
  optuna-demix worker study.yaml --storage sqlite:///mix.db \\
      --study-name mix --n-trials 64 --n-workers 2
  optuna-demix recommend study.yaml --storage sqlite:///mix.db \\
      --study-name mix --verify
  optuna-dashboard sqlite:///mix.db

Each command ends with the next one to type.
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
    try:
        with _sigterm_interrupts():
            arguments = parser.parse_args(argv)
            run: Callable[[argparse.Namespace], int] | None = getattr(arguments, "run", None)
            if run is None:
                parser.print_help()
                return 2
            return run(arguments)
    except DemixError as error:
        print(f"optuna-demix: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        if argv is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it without a word
        print("optuna-demix: interrupted", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM interrupt as SIGINT does, so that what is open is closed; a second one kills."""

    def interrupt(signum: int, frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build_parser() -> CommandParser:
    """The parser of the whole command."""
    from optuna_demix import __version__

    parser = CommandParser(prog="optuna-demix", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"optuna-demix {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (
        demo,
        init,
        check,
        train,
        plan,
        import_runs,
        worker,
        recommend,
        fidelity,
        serve,
        arena,
        report,
        export,
    ):
        command.add_parser(commands)
    return parser
