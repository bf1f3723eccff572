"""Optuna's journal file, which mends itself after a writer died in the middle of a line."""

from __future__ import annotations

import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


def open_journal(path: Path) -> JournalStorage:
    """Open a journal that exists.

    Raises:
        ValueError: If the file is no journal.
        OSError: If it cannot be read.
    """
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(str(path))))


class _MendingLock(JournalFileSymlinkLock):
    """The lock of a journal; whoever gets it first cuts off a line that was never finished.

    A disk that was full, or a machine that lost power, leaves half a line. The next one would
    be appended to it, and no reader could pass the place.
    """

    def acquire(self) -> bool:
        acquired = super().acquire()
        try:
            _cut_torn_line(Path(self._lock_target_file))
        except BaseException:
            self.release()
            raise
        return acquired


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            stream.seek(max(0, end - 4096))
            block = stream.read(min(4096, end))
            newline = block.rfind(b"\n")
            if newline >= 0:
                end = max(0, end - 4096) + newline + 1
                break
            end = max(0, end - 4096)
        if end < size:
            stream.truncate(end)
