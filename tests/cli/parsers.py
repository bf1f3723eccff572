"""The parsers of the command."""

from __future__ import annotations

import argparse


def all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A parser and those of its subcommands, however deep."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in {id(choice): choice for choice in action.choices.values()}.values():
                found += all_parsers(inner)
    return found


def subparser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of one subcommand."""
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    choice = action.choices[name]
    assert isinstance(choice, argparse.ArgumentParser)
    return choice
