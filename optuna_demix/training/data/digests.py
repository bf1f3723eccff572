"""Digests of large files, kept so that they are read once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from optuna_demix.training._files import file_digest, read_json, write_json

_LARGE = 64 << 20  # bytes; smaller ones are read in less time than they take to be looked up
_SETTLED_NS = 5_000_000_000  # a file written just now may change again within the clock's tick


class Digests:
    """SHA-256 of files, remembered as long as their size, time and inode stay.

    Args:
        memory: File of JSON that remembers them.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def of(self, file: Path) -> str:
        """SHA-256 of a file's contents, in hexadecimal."""
        if file.stat().st_size < _LARGE:
            return file_digest(file)
        known = self._known(file)
        if known is not None:
            return known
        from filelock import FileLock

        self._memory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._memory}.lock"):  # the processes of one run ask at the same time
            known = self._known(file)
            if known is not None:
                return known
            marks = _marks(file)
            digest = file_digest(file)
            if marks == _marks(file) and time.time_ns() - marks[1] > _SETTLED_NS:
                kept = read_json(self._memory) or {}
                write_json(self._memory, {**kept, str(file): [*marks, digest]})
            return digest

    def _known(self, file: Path) -> str | None:
        kept = (read_json(self._memory) or {}).get(str(file))
        if not isinstance(kept, list) or len(kept) != 4 or kept[:3] != list(_marks(file)):
            return None
        return str(kept[3])


def _marks(file: Path) -> tuple[int, int, int]:
    facts = os.stat(file)
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
