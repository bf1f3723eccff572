"""Write a file so that it is either there whole or not there at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from optuna_demix.merging._problem import write_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def write_aside(file: Path, place: str, *, aside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a neighbour of ``file`` for writing; once written, sync it and rename it into place.

    Args:
        file: The final path.
        place: What the file is, for messages.
        aside: Where to write first, on the same file system; a fresh name by default. A leftover
            there is overwritten, so the caller must hold a lock on a name that is not fresh.

    Raises:
        ComponentError: If the disk is full or the file cannot be written; nothing is left behind.
    """
    if aside is None:
        aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        stream = open(aside, "wb")
    except OSError as error:
        raise write_problem(place, error, file) from error
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
        sync_directory(file.parent)
    except OSError as error:
        raise write_problem(place, error, file) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory survive a power cut, where the system lets us."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
