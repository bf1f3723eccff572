"""Write a file as a whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

_STANDARD = (1, 2)


@contextmanager
def whole_file(file: Path, *, aside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a neighbor of a file for writing; once written, sync it and rename it into place.

    A symlink stays one: the file behind it is replaced. A device, a pipe or the process's own
    output is not replaced but written to.

    Args:
        file: The final path; its folder must exist. What was there stays until the end.
        aside: Where to write first, on the same file system; a fresh name by default. A leftover
            there is overwritten, so the caller must hold a lock on a name that is not fresh.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    stream = _not_replaceable(file)
    if stream is not None:
        with stream:
            yield stream
        return
    if file.is_symlink():
        file = file.resolve()
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


def write_new(file: Path, text: str) -> None:
    """Write a text file as a whole where there is none.

    Raises:
        FileExistsError: If something has that name, also if it appears meanwhile.
        OSError: If it cannot be written; nothing is left behind.
    """
    aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    if os.path.lexists(file):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file))
    try:
        write_whole(aside, text)
        os.link(aside, file)  # unlike a rename it replaces nothing
        sync(file.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _not_replaceable(file: Path) -> BinaryIO | None:
    """Open what is there for writing if it is no file of its own, else return None."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    for descriptor in _STANDARD:
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                sys.stdout.flush()
                # Shares the position with what is printed before and after.
                return os.fdopen(os.dup(descriptor), "wb")
    return None if S_ISREG(found.st_mode) else open(file, "wb")


def sync(path: Path) -> None:
    """Bring a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
