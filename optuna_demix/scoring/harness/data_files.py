"""Data files of local tasks, found beside the task and not beside whoever runs it.

``datasets`` resolves a relative ``data_files`` against the working directory, so that a folder of
tasks works from one place only. Here it starts at the folder of the task's own YAML file.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Builders of ``datasets`` that read plain files; for any other path, ``data_files`` belong to the
# data set it names.
_FILE_BUILDERS = frozenset({"arrow", "csv", "json", "pandas", "parquet", "text", "xml"})


def with_absolute_data(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a task's or group's configuration whose data paths are absolute.

    Args:
        config: As in the YAML file; tasks written inside a group are treated alike.
        folder: Where relative paths start.
    """
    result = dict(config)
    kwargs = config.get("dataset_kwargs")
    if isinstance(kwargs, Mapping) and config.get("dataset_path", "json") in _FILE_BUILDERS:
        base = folder
        result["dataset_kwargs"] = absolute = dict(kwargs)
        if kwargs.get("data_dir"):
            base = folder / Path(kwargs["data_dir"]).expanduser()
            absolute["data_dir"] = str(base)
        if kwargs.get("data_files"):
            absolute["data_files"] = _absolute(kwargs["data_files"], base)
    members = config.get("task")
    if isinstance(members, list):
        result["task"] = [
            with_absolute_data(member, folder) if isinstance(member, Mapping) else member
            for member in members
        ]
    return result


def missing_data(config: Mapping[str, Any]) -> list[str]:
    """Data files of a task, made absolute before, that are not there."""
    kwargs = config.get("dataset_kwargs")
    if not isinstance(kwargs, Mapping) or config.get("dataset_path") not in _FILE_BUILDERS:
        return []
    return [path for path in _paths(kwargs.get("data_files")) if not _exists(path)]


def _absolute(files: Any, base: Path) -> Any:
    if isinstance(files, str | Path):
        text = str(files)
        return text if "://" in text else str(base / Path(text).expanduser())
    if isinstance(files, Mapping):
        return {split: _absolute(item, base) for split, item in files.items()}
    if isinstance(files, list | tuple):
        return [_absolute(item, base) for item in files]
    return files


def _paths(files: Any) -> Iterator[str]:
    if isinstance(files, str):
        yield files
    elif isinstance(files, Mapping):
        for item in files.values():
            yield from _paths(item)
    elif isinstance(files, list):
        for item in files:
            yield from _paths(item)


def _exists(path: str) -> bool:
    return "://" in path or Path(path).exists() or bool(glob.glob(path, recursive=True))
