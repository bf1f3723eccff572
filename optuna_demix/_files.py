"""Write a file as a whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(file: Path, *, aside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a neighbor of a file for writing; once written, sync it and rename it into place.

    Args:
        file: The final path; its folder must exist. What was there stays until the end.
        aside: Where to write first, on the same file system; a fresh name by default. A leftover
            there is overwritten, so the caller must hold a lock on a name that is not fresh.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    if aside is None:
        aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with open(aside, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """Write a text file as a whole; see :func:`whole_file`."""
    with whole_file(file) as stream:
        stream.write(text.encode("utf-8"))


def sync(path: Path) -> None:
    """Bring a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
