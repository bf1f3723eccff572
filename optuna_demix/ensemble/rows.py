"""``RowStore``: the log-probabilities of all tokens, one file for each component."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from optuna_demix._files import sync, whole_file
from optuna_demix._progress import Report
from optuna_demix.errors import ComponentError, DemixError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RowStore:
    """A folder of rows, each written whole, mapped into memory and shared by all processes.

    Args:
        folder: The folder of one scoring plan; made when the first row is written.
        n_tokens: Number of values of a row, T; ``None`` takes rows of any length.
    """

    def __init__(self, folder: Path, n_tokens: int | None = None) -> None:
        self._folder = folder
        self._n_tokens = n_tokens

    def file(self, digest: str) -> Path:
        """The file of a component of this digest."""
        return self._folder / f"{digest}.npy"

    def read(self, digest: str) -> NDArray[np.float32] | None:
        """The row (T,) of a component, mapped; ``None`` if it is missing or damaged."""
        try:
            row = np.load(self.file(digest), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = isinstance(row, np.memmap) and row.dtype == np.float32 and row.ndim == 1
        return row if fits and self._n_tokens in (None, len(row)) else None

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays beside the rows; a file that is there stays.

        Raises:
            DemixError: If the disk is full.
        """
        file = self._folder / f"{name}.npz"
        if self.kept(name) is None:
            with self._writing(), whole_file(file) as stream:
                np.savez(stream, allow_pickle=False, **arrays)

    def kept(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Arrays that were kept; ``None`` if they are missing or damaged."""
        try:
            with np.load(self._folder / f"{name}.npz", allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, BadZipFile):
            return None

    def complete(
        self,
        digests: Mapping[str, str],
        score: Callable[[str], NDArray[np.float32]],
        *,
        report: Callable[[str], None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Make the rows that are missing, and return all.

        Several processes may do so at once: each takes components that no other one has taken.

        Args:
            digests: Digest of each component.
            score: Computes the row of a component.
            report: Where progress is shown.

        Returns:
            Rows (T,) by component.

        Raises:
            ComponentError: If a component's values are not finite, naming it.
            DemixError: If the disk is full.
        """
        say = Report.of(report)
        missing = [name for name, digest in digests.items() if self.read(digest) is None]
        for wait in (False, True):  # at last for those that other processes have taken
            for name in missing:
                try:
                    with self._locked(digests[name], wait=wait):
                        if self.read(digests[name]) is None:
                            what = f"scoring component {name} for its token probabilities"
                            with say.step(what):
                                self._write(digests[name], _checked(name, score(name)))
                except Timeout:
                    continue
        rows = {name: self.read(digest) for name, digest in digests.items()}
        return {name: _present(name, row, self._folder) for name, row in rows.items()}

    def _write(self, digest: str, row: NDArray[np.float32]) -> None:
        """Write a row, with its lock held: what a killed process left aside is overwritten."""
        file = self.file(digest)
        with self._writing(), whole_file(file, aside=file.with_suffix(".partial")) as stream:
            np.save(stream, np.ascontiguousarray(row, dtype=np.float32), allow_pickle=False)
        sync(self._folder)

    @contextmanager
    def _locked(self, digest: str, *, wait: bool) -> Iterator[None]:
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f".{digest}.lock", timeout=-1 if wait else 0)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Timeout:  # an OSError too
            raise
        except OSError as error:
            raise DemixError(
                f"token probabilities cannot be written to {self._folder} ({error.strerror}); "
                "check the path and the space"
            ) from None


def _checked(name: str, row: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(row).all():
        raise ComponentError(
            f"component {name!r} gives log-probabilities that are not finite; train it again or "
            "choose a wider scoring.dtype"
        )
    return row


def _present(name: str, row: NDArray[np.float32] | None, folder: Path) -> NDArray[np.float32]:
    if row is None:
        raise DemixError(
            f"the token probabilities of component {name!r} vanished from {folder}; run it again"
        )
    return row
