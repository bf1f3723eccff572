"""Documents from tables that ``datasets`` reads: parquet, Arrow, ``save_to_disk`` and the hub."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from optuna_demix._wording import one_line
from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training.data.files import DataFile
from optuna_demix.training.data.streams import Position, opened

_ROWS = 256


def tables_of(
    file: DataFile, dataset: DatasetConfig, fields: Sequence[str] | None, position: Position
) -> Iterator[Any]:
    """A file, folder or dataset of the hub as tables of Arrow, a few hundred rows each.

    Args:
        file: What to read.
        dataset: What the study says of it.
        fields: The columns that are wanted; those that are not there are left out. Default: all.
        position: Kept up to date.
    """
    with _quiet_datasets(), _ready(file) as url:
        rows, total = _open(url, file, dataset, fields)
        position.rows, read = total, 0
        for table in rows.with_format("arrow").iter(_ROWS):
            read += len(table)
            position.share = min(1.0, read / total) if total else 0.0
            yield table


def _open(
    url: str, file: DataFile, dataset: DatasetConfig, fields: Sequence[str] | None
) -> tuple[Any, int | None]:
    """The rows, and how many there are if that is known."""
    import datasets

    total: int | None = None
    if file.format == "saved":
        rows = _split_of(datasets.load_from_disk(url), file, dataset)
        total = len(rows)
    elif file.format == "hub":
        rows = _from_hub(dataset, url)
        split = (rows.info.splits or {}).get(dataset.split or "train")
        total = getattr(split, "num_examples", None) or None
    else:
        where = glob.escape(url) if "://" not in url else url
        options: dict[str, Any] = {"data_files": where, "split": "train", "streaming": True}
        rows = datasets.load_dataset(file.format, **options)
        if file.format == "parquet":
            total = _parquet_rows(url)
            chosen = _chosen(rows.column_names, fields)
            # Rows of a group may fill the memory, and so may columns that nobody asked for.
            rows = datasets.load_dataset("parquet", columns=chosen, batch_size=_ROWS, **options)
    if rows.column_names is not None:
        rows = rows.select_columns(_chosen(rows.column_names, fields))
    return rows, total


def _chosen(names: Sequence[str], fields: Sequence[str] | None) -> list[str]:
    """Those of the columns that are wanted; all where none is, so that a message can list them."""
    return [name for name in fields or () if name in names] or list(names)


def _split_of(loaded: Any, file: DataFile, dataset: DatasetConfig) -> Any:
    if not isinstance(loaded, dict):
        return loaded
    split = dataset.split or "train"
    if split not in loaded:
        raise ConfigError(
            f"{file}: has no split {split!r}; it has {', '.join(map(repr, loaded))}; name one by "
            "'split'"
        )
    return loaded[split]


def _from_hub(dataset: DatasetConfig, url: str) -> Any:
    import datasets

    return datasets.load_dataset(
        dataset.hub,
        name=dataset.config,
        split=dataset.split or "train",
        revision=url.rpartition("@")[2],
        streaming=dataset.streaming,
    )


def hub_file(dataset: DatasetConfig, where: str) -> DataFile:
    """The dataset of the hub at the commit that its revision means now.

    Raises:
        ConfigError: If there is no such dataset or revision, or it may not be read.
        DemixError: If the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    assert dataset.hub is not None
    commit = dataset.revision
    if commit is None or len(commit) != 40:
        try:
            commit = HfApi().dataset_info(dataset.hub, revision=dataset.revision).sha
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise ConfigError(
                f"{where}.hub: {dataset.hub} cannot be read ({one_line(error)}); correct the "
                "name or the revision, or log in with `hf auth login`"
            ) from None
        except Exception as error:  # offline, or the hub is down
            raise DemixError(
                f"{where}.hub: the hub does not answer ({one_line(error)}); try again, or give a "
                "commit of 40 digits as 'revision', which need not be asked for"
            ) from None
    return DataFile(f"hf://datasets/{dataset.hub}@{commit}", "hub")


def _parquet_rows(url: str) -> int | None:
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(url).num_rows if "://" not in url else None


@contextmanager
def _ready(file: DataFile) -> Iterator[str]:
    """Where the file can be read in any order: a compressed one is unpacked for a while."""
    if file.compression is None:
        yield file.url
        return
    with tempfile.TemporaryDirectory(prefix="optuna-demix-") as folder:
        copy = Path(folder) / f"unpacked.{file.format}"
        with opened(file) as stream, copy.open("wb") as target:
            copyfileobj(stream.content, target, 1 << 20)
        yield str(copy)


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep the log and the bars of datasets out of the way, and put them back."""
    import datasets

    verbosity, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()
