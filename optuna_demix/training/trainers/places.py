"""Where a trainer finds the data of each dataset."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna_demix._wording import unknown_name
from optuna_demix.config import DatasetConfig, StudyConfig
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.export import DataSource, sources_of
from optuna_demix.training._job import Run
from optuna_demix.training.data.files import DataFile, data_files
from optuna_demix.training.trainers.runs import PlanOptions, TextFiles, Trainer

# Builders of load_dataset by format.
_LOADERS = {
    "jsonl": "json",
    "json": "json",
    "parquet": "parquet",
    "arrow": "arrow",
    "csv": "csv",
    "text": "text",
}


def check_names(config: StudyConfig, options: PlanOptions) -> None:
    """Refuse ``--data`` of a dataset that the study has not, and a template without a name."""
    for name in options.data:
        if name not in config.dataset_names:
            raise InputError(f"--data: {unknown_name(name, config.dataset_names, 'dataset')}")
    if options.paths is not None and "{dataset}" not in options.paths:
        raise InputError(
            f"--paths {options.paths!r}: write {{dataset}} where the name of each one belongs"
        )


def place_of(name: str, options: PlanOptions) -> str | None:
    """The path that was given for a dataset on the command line; ``None`` if none was."""
    if name in options.data:
        return options.data[name]
    return None if options.paths is None else options.paths.replace("{dataset}", name)


def paths_of(config: StudyConfig, name: str, trainer: Trainer, options: PlanOptions) -> list[str]:
    """Paths of a dataset in the trainer's own format.

    Raises:
        InputError: If neither the command line nor the study names any.
    """
    given = place_of(name, options)
    if given is not None:
        return [given if "://" in given else os.path.abspath(given)]
    found = trainer.find([file.url for file in _files(config, name)])
    if not found:
        raise InputError(
            f"{trainer.title} reads {trainer.data}, which datasets.{name}.files of "
            f"{config.source} does not name; give --data {name}=PATH, or --paths for all"
        )
    return found


def texts_of(config: StudyConfig, name: str, options: PlanOptions) -> TextFiles:
    """What ``load_dataset`` takes for a dataset of texts.

    Raises:
        InputError: If its files are no texts, or of several kinds.
    """
    dataset = config.datasets.get(name, DatasetConfig())
    template = dataset.template or f"{{{dataset.text_field or 'text'}}}"
    given = place_of(name, options)
    if given is not None:  # a folder, or a name on the hub
        path = os.path.abspath(given) if os.path.exists(given) else given
        return TextFiles({"path": path}, template)
    if dataset.hub is not None:
        load = {
            "path": dataset.hub,
            "name": dataset.config,
            "split": dataset.split,
            "revision": dataset.revision,
        }
        return TextFiles({key: value for key, value in load.items() if value}, template)
    files = _files(config, name)
    if not files:
        raise InputError(
            f"datasets.{name}.files of {config.source} names no text; name it there, or give "
            f"--data {name}=FOLDER"
        )
    kinds = {_LOADERS.get(file.format) for file in files}
    (kind,) = kinds if len(kinds) == 1 else (None,)
    if kind is None:
        raise InputError(
            f"datasets.{name}.files of {config.source}: a plan takes texts of one format, one of "
            f"{', '.join(_LOADERS)}; give --data {name}=FOLDER of such files"
        )
    arguments: dict[str, object] = {"path": kind, "data_files": [file.url for file in files]}
    if kind == "text":
        arguments["sample_by"] = "document"
    return TextFiles(arguments, template)


def _files(config: StudyConfig, name: str) -> list[DataFile]:
    """The files of a dataset that the study names; none where it has a name alone."""
    dataset = config.datasets.get(name, DatasetConfig())
    if not dataset.files:
        return []
    where = f"{config.source}: datasets.{name}.files"
    return data_files(dataset, config.dataset_files(name), where)


def sources_for(
    run: Run, places: Mapping[str, Sequence[str]], sizes: Mapping[str, float], tokens: int
) -> list[DataSource]:
    """Sources of a run, those of a dataset of several paths shared out by size.

    Args:
        run: The run.
        places: Paths of each dataset.
        sizes: Tokens of each dataset, where known.
        tokens: Those that the run sees.

    Raises:
        ConfigError: If the study gives a dataset no share that can be written.
    """
    weighed: dict[str, float] = {}
    paths: dict[str, str] = {}
    parts: dict[str, float] = {}
    for name, share in run.shares.items():
        found = places[name]
        bytes_of = [_size(path) for path in found]
        total = sum(bytes_of)
        for index, path in enumerate(found):
            part = bytes_of[index] / total if total else 1.0 / len(found)
            key = name if len(found) == 1 else f"{name}-{index}"
            if key in paths:
                raise ConfigError(f"two sources would be called {key!r}; rename a dataset")
            weighed[key], paths[key] = share * part, path
            if name in sizes:
                parts[key] = sizes[name] * part
    found_sources = sources_of(weighed, tokens=parts, budget=tokens)
    return [dataclasses.replace(s, path=paths[s.name]) for s in found_sources]


def _size(path: str) -> int:
    """Bytes of a file, of the ``.bin`` of a prefix, or of the files in a folder; 0 if unknown."""
    place = Path(path)
    if place.is_dir():
        return sum(file.stat().st_size for file in place.iterdir() if file.is_file())
    for file in (place, Path(f"{path}.bin")):
        if file.is_file():
            return file.stat().st_size
    return 0
