"""The command to type next, with which every command ends."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from optuna_demix._process_id import PARENT_ENV
from optuna_demix.cli._password import TYPED_ENV
from optuna_demix.storage.connection import STORAGE_ENV
from optuna_demix.storage.secrets import mask_url

if TYPE_CHECKING:
    import argparse

    from optuna_demix.config import StudyConfig

_SHARED = ("storage", "study_name", "device")


def say_next(arguments: argparse.Namespace, *commands: str) -> None:
    """Print the commands to type next on stderr, unless nobody is there to read them.

    Args:
        arguments: Those of the command that ends: ``--no-progress`` and ``--json -`` ask for
            nothing beside the result.
        commands: Command lines.
    """
    quiet = getattr(arguments, "no_progress", False) or getattr(arguments, "json", None) == "-"
    if quiet or PARENT_ENV in os.environ:  # one of several: the parent says it
        return
    for number, command in enumerate(commands):
        print(f"{'      ' if number else 'next: '}{command}", file=sys.stderr)


def next_command(arguments: argparse.Namespace, name: str, *options: str, like: str = "") -> str:
    """A command of ours on the same study, with what the user has given of it.

    Args:
        arguments: Those of the command that ends.
        name: The command.
        options: Its own options.
        like: Which of ``storage``, ``study_name`` and ``device`` it takes as well, in words.
    """
    words = ["optuna-demix", *name.split(), arguments.study]
    for option in _SHARED:
        if option in like.split():
            words += _given(arguments, option)
    return shlex.join([*words, *options])


def search_commands(arguments: argparse.Namespace, config: StudyConfig) -> list[str]:
    """The command that makes a study, and a worker on it.

    Args:
        arguments: Those of the command that ends, which has no storage.
        config: The study.
    """
    from optuna_demix.study.attach import create_command

    storage = None if STORAGE_ENV in os.environ else "sqlite:///mix.db"
    given = [] if storage is None else ["--storage", storage]
    return [
        create_command(config, storage=storage, study_name="mix"),
        next_command(arguments, "worker", *given, "--study-name", "mix", "--n-trials", "64"),
    ]


def storage_words(arguments: argparse.Namespace) -> list[str]:
    """``--storage`` as the user gave it, without its password; nothing if it was not typed."""
    url = getattr(arguments, "storage", None)
    if url is None and TYPED_ENV in os.environ:
        url = os.environ.get(STORAGE_ENV)
    return [] if url is None else ["--storage", mask_url(url)]


def _given(arguments: argparse.Namespace, option: str) -> list[str]:
    if option == "storage":
        return storage_words(arguments)
    value = getattr(arguments, option, None)
    if value is None or (option == "device" and value == "auto"):
        return []
    return [f"--{option.replace('_', '-')}", str(value)]
