"""Optuna's journal file: it mends what a writer left that died, and names what it cannot mend."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._storage import JournalOperation

from optuna_demix.errors import StudyError

_SQLITE_HEADER = b"SQLite format 3\0"
_OPERATIONS = frozenset(int(operation) for operation in JournalOperation)


def open_journal(path: Path) -> JournalStorage:
    """Open a journal that exists.

    Raises:
        StudyError: If there is no such file, it is no journal, or a damaged one.
    """
    if not path.is_file():
        raise StudyError(
            f"storage '{path}': there is no such journal; make it with "
            f"'optuna create-study --storage {path} --storage-class JournalFileBackend …' or "
            "correct the path"
        )
    try:
        with path.open("rb") as stream:
            is_sqlite = stream.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
        if is_sqlite:
            raise StudyError(f"storage '{path}' is an SQLite database; write sqlite:///{path}")
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise StudyError(
            f"storage '{path}' cannot be used: {error.strerror or error}; correct the path"
        ) from None


class _Journal(JournalFileBackend):
    """A journal file that says which line is damaged, where Optuna raises a raw error."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_MendingLock(str(path)))
        self._path = path

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Records from a number on; see :class:`optuna.storages.journal.JournalFileBackend`."""
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                number += 1
                if not _is_record(log):
                    raise _damage(self._path, number)
                yield log
        except StudyError:
            raise
        except ValueError:  # it is no JSON
            raise _damage(self._path, number + 1) from None


def _damage(path: Path, number: int) -> StudyError:
    """What to say of a journal whose line with this number, from 1 on, is no record."""
    if number == 1 and not _holds_records(path):
        return StudyError(f"storage '{path}' is not a journal of Optuna; correct the path")
    # Without the one line later ones would mean other trials: they are counted as they come.
    rest = f", or keep what stands before it: head -n {number - 1} {path} > FILE"
    return StudyError(
        f"storage '{path}' is damaged in line {number}, which is no record of a journal; restore "
        f"a copy{rest if number > 1 else ''}"
    )


def _holds_records(path: Path) -> bool:
    with path.open("rb") as stream:
        for line in stream:
            try:
                if _is_record(json.loads(line)):
                    return True
            except ValueError:
                continue
    return False


def _is_record(log: Any) -> bool:
    if not isinstance(log, dict) or "worker_id" not in log:
        return False
    operation = log.get("op_code")
    return isinstance(operation, int) and operation in _OPERATIONS


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
