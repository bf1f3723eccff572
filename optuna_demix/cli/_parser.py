"""The parser of every command and subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any, NoReturn

from optuna_demix.storage.secrets import mask_url


class CommandParser(argparse.ArgumentParser):
    """A parser that takes whole option names only, and prints no password.

    The beginning of an option's name would do for ``argparse``; but what hides the password of a
    storage looks for ``--storage``. Parsers of subcommands are of this class as well.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **arguments,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line, and exit with status 2."""
        super().error(mask_url(message))

    def words(self, values: argparse.Namespace, *, leave_out: Collection[str] = ()) -> list[str]:
        """The command line that gives the same values when this parser reads it.

        Args:
            values: What the parser has read.
            leave_out: Names of values that the command line shall not hold.
        """
        words: list[str] = []
        for action in self._actions:
            value = getattr(values, action.dest, action.default)
            if action.dest in leave_out or value == action.default:
                continue
            option = action.option_strings[:1]
            if action.nargs == 0:
                words += option
            elif isinstance(value, list):
                words += [*option, *map(str, value)]
            else:
                words.append("=".join([*option, str(value)]))
        return words
