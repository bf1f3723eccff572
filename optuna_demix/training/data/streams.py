"""Open a file wherever it lies and however it is compressed, and say in one line why not."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from optuna_demix._wording import one_line
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training.data.files import DataFile, file_system


@dataclass
class Position:
    """How far one file is read.

    Attributes:
        share: Part of it that is read, 0 to 1, as far as that is known.
        rows: Number of its rows, where the file says it.
    """

    share: float = 0.0
    rows: int | None = None


@dataclass
class Stream:
    """The contents of an open file.

    Attributes:
        content: What it holds, decompressed.
        size: Bytes of the file as it lies there.
    """

    content: BinaryIO
    size: int
    _raw: BinaryIO

    @property
    def share(self) -> float:
        """Part of the file that is read, 0 to 1."""
        return min(1.0, self._raw.tell() / max(self.size, 1))


@contextmanager
def opened(file: DataFile) -> Iterator[Stream]:
    """Open a file for reading."""
    fs, path = file_system(file.url, file.url)
    raw: Any = open(path, "rb") if file.is_local else fs.open(path, "rb")
    with raw:
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        with _decompressed(raw, file) as content:
            yield Stream(content, size, raw)


def _decompressed(raw: Any, file: DataFile) -> Any:
    if file.compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if file.compression == "bz2":
        return bz2.BZ2File(raw)
    if file.compression == "xz":
        return lzma.LZMAFile(raw)
    if file.compression == "zstd":
        return _zstd(file).ZstdFile(raw)
    return raw if file.is_local else io.BufferedReader(raw, 1 << 20)


def _zstd(file: DataFile) -> Any:
    # The package zstandard, which fsspec takes where this is missing, reads only the first frame
    # of a file and takes one that is cut short for whole.
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DemixError(f"{file}: .zst needs the package backports.zstd; pip install backports.zstd")


@contextmanager
def explained(file: DataFile) -> Iterator[None]:
    """Word what goes wrong while a file is read.

    Raises:
        ConfigError: If the file is damaged or not what it is called.
        DemixError: If it cannot be reached.
    """
    try:
        yield
    except (DemixError, MemoryError):
        raise
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ConfigError(
            f"{file}: is cut short or damaged ({one_line(error)}); copy it again"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 (byte {error.start}); convert it") from None
    except OSError as error:
        if file.is_local and error.errno is not None:
            told = error.strerror or one_line(error)
            raise ConfigError(
                f"{error.filename or file}: {told}; check the path and its permissions"
            ) from None
        told = one_line(error)
        if file.is_local:
            raise ConfigError(f"{file}: is damaged ({told}); copy it again") from None
        raise DemixError(
            f"{file}: cannot be read ({told}); check the network and the credentials, then start "
            "again"
        ) from None
    except Exception as error:  # pyarrow, pandas, zstd and file systems have errors of their own
        raise ConfigError(
            f"{file}: cannot be read as {file.format} ({one_line(error)}); copy it again, or "
            "correct 'format'"
        ) from None
