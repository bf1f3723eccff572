"""The documents of a file, whatever its format: text to tokenize, or token ids as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix.config import DatasetConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training.data.files import TOKENIZED, DataFile
from optuna_demix.training.data.lines import csv_rows, json_rows, jsonl_rows, text_parts
from optuna_demix.training.data.mds import mds_rows
from optuna_demix.training.data.shards import shard_of, token_chunks
from optuna_demix.training.data.streams import Position, explained
from optuna_demix.training.data.tables import tables_of

Ids = npt.NDArray[Any]
Piece = tuple[str | Ids, bool]
"""Text and whether the document ends with it; or token ids, which end their documents themselves.
"""

_LONGEST_PIECE = 1 << 20  # characters; the tokenizer needs some hundred bytes for each
TOKEN_FIELDS = ("tokens", "input_ids")
"""Names of fields of token ids, which are read where there is no ``text``."""


def pieces_of(
    file: DataFile, dataset: DatasetConfig, where: str, position: Position
) -> Iterator[Piece]:
    """The documents of a file that are not empty, long ones in pieces.

    Args:
        file: The file.
        dataset: What the study says of it.
        where: The dataset's place in the study, for messages.
        position: Kept up to date while the file is read.

    Raises:
        ConfigError: If it is damaged, of another format, or has no such field.
        DemixError: If it cannot be reached.
    """
    with explained(file):
        if file.format in TOKENIZED:
            for chunk in token_chunks(shard_of(file, dataset, where), position):
                yield chunk, False
        elif file.format == "text":
            yield from _cut(text_parts(file, position))
        else:
            for document in _documents(file, dataset, where, position):
                if isinstance(document, str):
                    yield from _cut([document])
                elif len(document):
                    yield document, False


def _cut(parts: Iterable[str]) -> Iterator[Piece]:
    """Cut one document, after a line or before a space where there is one."""
    rest = ""
    for part in parts:
        rest, start = rest + part, 0
        while len(rest) - start > _LONGEST_PIECE:
            middle, end = start + _LONGEST_PIECE // 2, start + _LONGEST_PIECE
            cut = rest.rfind("\n", middle, end) + 1 or rest.rfind(" ", middle, end)
            cut = cut if cut > 0 else end
            yield rest[start:cut], False
            start = cut
        rest = rest[start:]
    if rest:
        yield rest, True


def _documents(
    file: DataFile, dataset: DatasetConfig, where: str, position: Position
) -> Iterator[str | Ids]:
    if file.format in ("jsonl", "json", "csv"):
        read = {"jsonl": jsonl_rows, "json": json_rows, "csv": csv_rows}[file.format]
        for place, row in read(file, position):
            yield from _of_row(row, dataset, place, where)
    elif file.format == "mds":
        wanted = [*dataset.field_names, *TOKEN_FIELDS]
        for place, row in mds_rows(file, wanted, dataset.token_dtype or "int64", position):
            yield from _of_row(row, dataset, place, where)
    else:
        wanted = dataset.field_names + list(TOKEN_FIELDS if _may_be_tokens(dataset) else ())
        number = 0
        for table in tables_of(file, dataset, wanted, position):
            yield from _of_table(table, dataset, file, where, number)
            number += len(table)


def _may_be_tokens(dataset: DatasetConfig) -> bool:
    return dataset.text_field is None and dataset.template is None


def _field(names: Sequence[str], dataset: DatasetConfig) -> str:
    """The one field that is read: where there is no ``text``, one with the names of tokens."""
    (field,) = dataset.field_names
    if field not in names and _may_be_tokens(dataset):
        return next((name for name in TOKEN_FIELDS if name in names), field)
    return field


def _of_row(
    row: Mapping[str, Any], dataset: DatasetConfig, place: str, where: str
) -> Iterator[str | Ids]:
    if dataset.template is not None:
        yield _checked(filled(row, dataset, place, where), place, dataset.field_names[0])
        return
    field = _field(list(row), dataset)
    if field not in row:
        raise _missing(field, list(row), place, where)
    value = row[field]
    if isinstance(value, str):
        yield _checked(value, place, field)
    elif isinstance(value, np.ndarray) or (
        isinstance(value, list) and value and all(type(item) is int for item in value)
    ):
        yield np.asarray(value)
    elif value is not None and value == value:  # an empty cell of pandas is not equal to itself
        raise ConfigError(f'{place}: has no "{field}" that is a string; correct or remove it')


def _missing(field: str, names: Sequence[str], place: str, where: str) -> ConfigError:
    known = f"it has {', '.join(map(repr, names[:10]))}" if names else "it has no field at all"
    return ConfigError(
        f'{place}: has no "{field}"; {known}: correct it, or name the field by '
        f"{where.rpartition(': ')[2]}.text_field"
    )


def filled(row: Mapping[str, Any], dataset: DatasetConfig, place: str, where: str) -> str:
    """The template of a dataset with the fields of one document.

    Raises:
        ConfigError: If it does not have one of them.
    """
    assert dataset.template is not None
    values = {}
    for name in dataset.field_names:
        if name not in row:
            raise _missing(name, list(row), place, where)
        values[name] = "" if row[name] is None else row[name]
    return dataset.template.format_map(values)


def _checked(text: str, place: str, field: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f'{place}: "{field}" holds a lone surrogate; correct or remove it'
            ) from None
    return text


def _of_table(
    table: Any, dataset: DatasetConfig, file: DataFile, where: str, number: int
) -> Iterator[str | Ids]:
    import pyarrow as pa

    names = table.column_names
    if dataset.template is not None:
        for row in table.to_pylist():
            yield filled(row, dataset, str(file), where)
        return
    field = _field(names, dataset)
    if field not in names:
        raise _missing(field, names, str(file), where)
    column = table.column(field)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        try:
            values = column.to_pylist()
        except UnicodeDecodeError:
            raise ConfigError(
                f"{file}, rows {number + 1} to {number + len(table)}: are not all UTF-8; convert "
                "or remove them"
            ) from None
        yield from (value for value in values if value is not None)
    elif _is_list_of_integers(kind):
        for value in column:
            if value.is_valid:
                yield value.values.to_numpy(zero_copy_only=False)
    else:
        raise ConfigError(
            f"{file}: its field {field!r} holds {kind}, not text; name another by "
            f"{where.rpartition(': ')[2]}.text_field"
        )


def _is_list_of_integers(kind: Any) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    is_list = is_list or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_integer(kind.value_type))
