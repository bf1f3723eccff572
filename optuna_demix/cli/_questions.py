"""Questions to somebody at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from optuna_demix.errors import DemixError, InputError

Value = TypeVar("Value")


def is_terminal() -> bool:
    """Whether somebody is there to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, read: Callable[[str], Value]) -> Value:
    """Ask until the answer can be read.

    Args:
        question: What is asked.
        read: Turns an answer into a value; a ``ValueError`` says why it cannot be one.

    Raises:
        DemixError: If the input ends.
    """
    while True:
        print(f"{question} ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise DemixError("the input has ended before all questions; nothing was written")
        try:
            return read(line.strip())
        except (InputError, ValueError) as error:
            print(f"  {error}", file=sys.stderr)


def agreed(question: str, *, default: bool) -> bool:
    """Ask for yes or no; nothing is the default."""

    def read(answer: str) -> bool:
        if answer.lower() in ("", "y", "yes", "n", "no"):
            return default if not answer else answer.lower().startswith("y")
        raise ValueError("answer yes or no")

    return ask(f"{question} [{'Y/n' if default else 'y/N'}]", read)
