"""The files of a dataset, wherever they lie, and the format of each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from optuna_demix._wording import one_line
from optuna_demix.config.mixture import DataFormat, DatasetConfig
from optuna_demix.errors import ConfigError, DemixError

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".npy": "tokens",
    ".bin": "tokens",
    ".ds": "tokens",  # nanotron's
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
TOKENIZED = ("megatron", "tokens")
"""Formats of flat token ids, which are mapped into memory where they lie."""


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset, or a folder that is read as one.

    Attributes:
        url: Absolute path, or URL of fsspec.
        format: One of :data:`~optuna_demix.config.mixture.DataFormat`, or ``hub``.
        compression: ``gzip``, ``zstd``, ``bz2``, ``xz`` or none.
    """

    url: str
    format: str
    compression: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return "://" not in self.url

    def __str__(self) -> str:
        return self.url


def file_system(url: str, where: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path on it.

    Args:
        url: Path or URL.
        where: The field of the study that names it.

    Raises:
        DemixError: If its package is missing or there is no such protocol.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if "://" not in url:
        return LocalFileSystem(), url
    try:
        return url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise DemixError(f"{where}: {url}: {one_line(error)} (pip install …)") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {url}: {one_line(error)}; correct the URL") from None


def data_files(dataset: DatasetConfig, paths: Sequence[str], where: str) -> list[DataFile]:
    """Expand folders and URLs into files, each with its format.

    Args:
        dataset: What the study says of the dataset.
        paths: Its paths and URLs, as :meth:`~optuna_demix.config.StudyConfig.dataset_files` has
            them.
        where: The field of the study that names them.

    Returns:
        The files in the order of the paths, those of a folder sorted; none twice.

    Raises:
        ConfigError: If one is not there or is none of the formats.
    """
    found: dict[str, DataFile] = {}
    for url in paths:
        fs, path = file_system(url, where)
        try:
            matches = sorted(fs.glob(path)) if "://" in url and glob.has_magic(path) else [path]
            if not matches or not fs.exists(matches[0]):
                raise ConfigError(f"{where}: nothing matches {url!r}; correct the URL")
            for match in matches:
                for file in _expand(fs, match, dataset, where):
                    found.setdefault(file.url, file)
        except (DemixError, MemoryError):
            raise
        except Exception as error:  # each file system has errors of its own
            if "://" not in url:
                raise
            raise DemixError(
                f"{where}: {url} cannot be reached ({one_line(error)}); check the URL, the "
                "network and the credentials"
            ) from None
    return list(found.values())


def _expand(fs: Any, path: str, dataset: DatasetConfig, where: str) -> Iterator[DataFile]:
    if not fs.isdir(path):
        yield _file(fs, path, dataset, where)
        return
    kind = _kind_of_folder(fs, path, dataset)
    if kind is not None:
        yield DataFile(_url(fs, kind[0]), kind[1])
        return
    empty = True
    for file in _walk(fs, path, dataset):
        empty = False
        yield _file(fs, file, dataset, where)
    if empty:
        raise ConfigError(
            f"{where}: {_url(fs, path)} holds no file of a known format; name the files, and "
            f"their 'format' where their names do not say it ({', '.join(_FORMATS)})"
        )


def _kind_of_folder(fs: Any, path: str, dataset: DatasetConfig) -> tuple[str, str] | None:
    """Where a dataset lies that is a folder of its own, and its format."""
    if dataset.format in (None, "saved") and (
        fs.exists(f"{path}/dataset_dict.json")
        or (fs.exists(f"{path}/state.json") and fs.exists(f"{path}/dataset_info.json"))
    ):
        return path, "saved"
    if dataset.format in (None, "mds"):
        for folder in (path, f"{path}/{dataset.split or 'train'}"):
            if fs.exists(f"{folder}/index.json"):
                return folder, "mds"
    return None


def _walk(fs: Any, path: str, dataset: DatasetConfig) -> Iterator[str]:
    """Files of a plain folder, sorted, those below it too, hidden ones left out."""
    for file in sorted(fs.find(path)):
        name = file[len(path) :].strip("/")
        if any(part.startswith((".", "_")) for part in name.split("/")):
            continue
        if dataset.format is not None or _split(name)[0] in _FORMATS:
            yield file


def _split(name: str) -> tuple[str, str | None]:
    """Suffix of a name below that of its compression, and the compression."""
    stem, suffix = os.path.splitext(name.lower())
    compression = _COMPRESSIONS.get(suffix)
    return (os.path.splitext(stem)[1], compression) if compression else (suffix, None)


def _file(fs: Any, path: str, dataset: DatasetConfig, where: str) -> DataFile:
    suffix, compression = _split(path)
    if suffix == ".idx":
        suffix, path = ".bin", path[:-4] + ".bin"
    kind = dataset.format or _FORMATS.get(suffix)
    if suffix == ".bin" and dataset.format is None and fs.exists(path[:-4] + ".idx"):
        kind = "megatron"
    url = _url(fs, path)
    if kind is None:
        hint = "name it by 'format', or convert it"
        if suffix == ".mds":
            hint = "name the folder that holds its index.json"
        known = ", ".join(get_args(DataFormat))
        raise ConfigError(f"{where}: {url} is none of the formats {known}; {hint}")
    if kind in ("saved", "mds"):
        marker = "index.json" if kind == "mds" else "dataset_info.json"
        raise ConfigError(f"{where}: {url} is no folder of the format {kind} (no {marker})")
    return DataFile(url, kind, compression)


def _url(fs: Any, path: str) -> str:
    from fsspec.implementations.local import LocalFileSystem

    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def stem_of(name: str) -> str | None:
    """A file's name without the suffixes of format and compression; none if it is no data."""
    suffix, compression = _split(name)
    if suffix not in _FORMATS:
        return None
    stem = os.path.splitext(name)[0] if compression else name
    return os.path.splitext(stem)[0] or None
