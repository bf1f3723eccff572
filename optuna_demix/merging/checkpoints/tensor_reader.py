"""Read bytes of stored tensors; a file that shrank since its header was checked is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from optuna_demix.merging._problem import problem, read_problem

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from optuna_demix.merging.checkpoints.safetensors import TensorEntry


class TensorReader:
    """Keeps the weight files of one checkpoint open.

    Plain reads rather than a memory map: a file truncated under a map kills the process.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._streams: dict[Path, BinaryIO] = {}

    def __enter__(self) -> TensorReader:
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every file."""
        for stream in self._streams.values():
            stream.close()

    def read_into(self, entry: TensorEntry, start: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes of ``entry`` from byte ``start`` on.

        Raises:
            ComponentError: If the file cannot be read or has become shorter.
        """
        try:
            stream = self._streams.get(entry.file)
            if stream is None:
                stream = self._streams[entry.file] = open(entry.file, "rb", buffering=0)
            stream.seek(entry.start + start)
            position = 0
            while position < len(target):
                count = stream.readinto(target[position:])  # type: ignore[attr-defined]
                if not count:
                    what = "became shorter while it was being read"
                    remedy = "wait until the model is written, then try again"
                    raise problem(self._label, what, remedy, file=entry.file)
                position += count
        except OSError as error:
            raise read_problem(self._label, error, entry.file) from error
