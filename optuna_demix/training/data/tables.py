"""Documents from tables: parquet, Arrow, ``save_to_disk`` and datasets of the hub."""

from __future__ import annotations

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
from optuna_demix.training.data.streams import Position, Stream, opened

_ROWS = 256
_BUFFER = 1 << 20  # bytes of each column of parquet


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
    if file.format in ("parquet", "arrow"):
        read = _parquet if file.format == "parquet" else _arrow
        with _seekable(file) as stream:
            yield from read(stream, fields, position)
        return
    with _quiet_datasets():
        rows = _opened(file, dataset)
        if rows.column_names is not None:
            rows = rows.select_columns(_chosen(rows.column_names, fields))
        position.rows, done = _rows_of(rows, dataset), 0
        for table in rows.with_format("arrow").iter(_ROWS):
            done += len(table)
            position.share = min(1.0, done / position.rows) if position.rows else 0.0
            yield table


def _parquet(stream: Stream, fields: Sequence[str] | None, position: Position) -> Iterator[Any]:
    """Rows in pages as they lie in the file.

    ``datasets`` and Arrow's own scanner hold a whole group of rows: 1.2 GB where this takes 40 MB,
    for a group of 0.5 GB of text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(stream.content, buffer_size=_BUFFER, pre_buffer=False)
    position.rows, done = source.metadata.num_rows, 0
    chosen = _chosen(source.schema_arrow.names, fields)
    for batch in source.iter_batches(_ROWS, columns=chosen, use_threads=False):
        done += len(batch)
        position.share = done / max(source.metadata.num_rows, 1)
        yield pa.Table.from_batches([batch])


def _arrow(stream: Stream, fields: Sequence[str] | None, position: Position) -> Iterator[Any]:
    import pyarrow as pa

    magic = stream.content.read(6)
    stream.content.seek(0)
    if magic == b"ARROW1":
        source = pa.ipc.open_file(stream.content)
        batches = (source.get_batch(i) for i in range(source.num_record_batches))
    else:
        source = pa.ipc.open_stream(stream.content)
        batches = iter(source)
    chosen = _chosen(source.schema.names, fields)
    for batch in batches:
        batch.validate(full=True)
        position.share = stream.share
        yield pa.Table.from_batches([batch]).select(chosen)


def _opened(file: DataFile, dataset: DatasetConfig) -> Any:
    import datasets

    if file.format == "saved":
        return _split_of(datasets.load_from_disk(file.url), file, dataset)
    return datasets.load_dataset(
        dataset.hub,
        name=dataset.config,
        split=dataset.split or "train",
        revision=file.url.rpartition("@")[2],
        streaming=dataset.streaming,
    )


def _rows_of(rows: Any, dataset: DatasetConfig) -> int | None:
    try:
        return len(rows)
    except TypeError:  # it is streamed
        split = (rows.info.splits or {}).get(dataset.split or "train")
        return getattr(split, "num_examples", None) or None


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


@contextmanager
def _seekable(file: DataFile) -> Iterator[Stream]:
    """Open a file to be read in any order: a compressed one is unpacked for a while."""
    if file.compression is None:
        with opened(file) as stream:
            yield stream
        return
    with tempfile.TemporaryDirectory(prefix="optuna-demix-") as folder:
        copy = Path(folder) / "unpacked"
        with opened(file) as stream, copy.open("wb") as target:
            copyfileobj(stream.content, target, 1 << 20)
        with opened(DataFile(str(copy), file.format)) as stream:
            yield stream


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
