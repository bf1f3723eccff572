"""Write a file so that it is either there whole or not there at all."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from optuna_demix._files import sync, whole_file
from optuna_demix.merging._problem import write_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def write_aside(file: Path, place: str) -> Iterator[BinaryIO]:
    """Open a neighbor of ``file`` for writing; once written, sync it and rename it into place.

    Args:
        file: The final path.
        place: What the file is, for messages.

    Raises:
        ComponentError: If the disk is full or the file cannot be written; nothing is left behind.
    """
    try:
        with whole_file(file) as stream:
            yield stream
        sync_directory(file.parent)
    except OSError as error:
        raise write_problem(place, error, file) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory survive a power cut, where the system lets us."""
    with suppress(OSError):
        sync(directory)
