"""Look into a dataset: what it is made of, and about how many tokens it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optuna_demix.config import DatasetConfig
from optuna_demix.config.study import paths_of
from optuna_demix.errors import ConfigError
from optuna_demix.training.data.corpus import parts_of
from optuna_demix.training.data.documents import TOKEN_FIELDS, filled
from optuna_demix.training.data.files import TOKENIZED, DataFile, data_files, file_system
from optuna_demix.training.data.lines import csv_rows, json_rows, jsonl_rows, text_parts
from optuna_demix.training.data.mds import mds_rows
from optuna_demix.training.data.shards import shard_of
from optuna_demix.training.data.streams import Position, explained, opened
from optuna_demix.training.data.tables import hub_file, tables_of

_MOST_FILES = 8
_MOST_CHARACTERS = 1 << 20  # of a document
_EXPANSION_BYTES = 4 << 20
_TEXT_FIELDS = ("text", "content")


@dataclass(frozen=True)
class Sample:
    """A part of a dataset.

    Attributes:
        format: Format of its first file.
        files: Number of its files.
        bytes: Their size as they lie there; none where a hub does not say it.
        fields: What each field holds: ``text``, ``tokens`` or ``other``; none of plain text.
        text_field: The field that is read, or that is most likely the text; none of plain text.
        texts: The documents that were read; none of token ids.
        characters: Their length together.
        documents: Their number.
        share: Part of the dataset that they are, 0 to 1; 0 where that is not known.
        tokens: Number of all tokens, where they are there as such.
    """

    format: str
    files: int
    bytes: int | None
    fields: dict[str, str]
    text_field: str | None
    texts: tuple[str, ...]
    characters: int
    documents: int
    share: float
    tokens: int | None

    def estimated_tokens(self, encode: Callable[[list[str]], list[list[int]]]) -> int | None:
        """About how many tokens the whole dataset has, an end token for each document included.

        Args:
            encode: Makes token ids of texts, as
                :attr:`~optuna_demix.training.data.vocabulary.Vocabulary.encode` does.

        Returns:
            The number; exact for token ids in files, none where the share is not known.
        """
        if self.tokens is not None or not self.share:
            return self.tokens
        sampled = sum(len(ids) for ids in encode(list(self.texts)))
        read = sum(map(len, self.texts))
        whole = sampled * self.characters / max(read, 1)  # as if no text had been cut
        return round((whole + self.documents) / self.share)


def sample_of(
    dataset: DatasetConfig, folder: Path, *, max_documents: int = 200, where: str = "files"
) -> Sample:
    """Read some documents from files that are spread over a dataset.

    Args:
        dataset: What the study says of it, or would say.
        folder: Where relative paths start.
        max_documents: How many documents to read.
        where: The dataset's place in the study, for messages.

    Raises:
        ConfigError: If there is none, or a file cannot be used.
        DemixError: If a file cannot be reached.
    """
    if dataset.hub is not None:
        files = [hub_file(dataset, where)]
    else:
        files = data_files(dataset, paths_of(dataset, folder, where), where)
    sizes = [_size(file) for file in files]
    if all(file.format in TOKENIZED for file in files):
        tokens = sum(_length(file, dataset, where) for file in files)
        return Sample(files[0].format, len(files), sum(sizes), {}, None, (), 0, 0, 1.0, tokens)
    if any(file.format in TOKENIZED for file in files):
        raise ConfigError(f"{where}: holds text and token ids; make two datasets of it")
    chosen = sorted({int(i) for i in np.linspace(0, len(files) - 1, _MOST_FILES)})
    each = max(1, max_documents // len(chosen))
    rows: list[Mapping[str, Any]] = []
    read = 0.0
    for i in chosen:
        with explained(files[i]):
            found, share = _some(files[i], dataset, each, sizes[i])
        rows += found
        read += share * (sizes[i] or 1)
    total = sum(sizes)
    fields: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if fields.get(name) != "text":
                fields[name] = _kind(value)
    is_text = files[0].format == "text"
    field = "text" if is_text else _text_field(dataset, fields, rows)
    texts, characters, tokens = _texts(rows, dataset, field, str(files[0]))
    share = read / (total or 1)
    return Sample(
        files[0].format,
        len(files),
        total or None,
        {} if is_text else fields,
        None if is_text else field,
        tuple(texts),
        characters,
        len(rows),
        share,
        round(tokens / share) if tokens and share else None,
    )


def _size(file: DataFile) -> int:
    if file.format == "hub":
        return 0
    total = 0
    for part in parts_of(file):
        fs, path = file_system(part.url, part.url)
        with explained(file):
            total += int(fs.size(path) or 0)
    return total


def _length(file: DataFile, dataset: DatasetConfig, where: str) -> int:
    with explained(file):
        return shard_of(file, dataset, where).length


def _some(
    file: DataFile, dataset: DatasetConfig, most: int, size: int
) -> tuple[list[Mapping[str, Any]], float]:
    """The first rows of a file, and which part of it they are."""
    position = Position()
    found: list[Mapping[str, Any]] = []
    written = 0
    if file.format == "text":
        text = ""
        for part in text_parts(file, position):
            text += part
            if len(text) >= _MOST_CHARACTERS:
                break
        share = len(text.encode()) / max(_unpacked(file, size), 1)
        return ([{"text": text}] if text else []), min(share, 1.0)
    for row in _rows(file, dataset, position):
        if len(found) == most:
            break
        found.append(row)
        written += _written(row, file.format)
    else:
        return found, 1.0
    if position.rows:
        return found, len(found) / position.rows
    if file.format == "mds":
        return found, position.share
    return found, min(1.0, written / max(_unpacked(file, size), 1))


def _rows(
    file: DataFile, dataset: DatasetConfig, position: Position
) -> Iterator[Mapping[str, Any]]:
    if file.format == "mds":
        rows = mds_rows(file, None, dataset.token_dtype or "int64", position)
        yield from (row for _, row in rows)
    elif file.format in ("jsonl", "json", "csv"):
        read = {"jsonl": jsonl_rows, "json": json_rows, "csv": csv_rows}[file.format]
        yield from (row for _, row in read(file, position))
    else:
        for table in tables_of(file, dataset, None, position):
            yield from table.to_pylist()


def _written(row: Mapping[str, Any], kind: str) -> int:
    """About how many bytes a row takes in its file."""
    if kind in ("jsonl", "json"):
        return len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")) + 1
    return sum(len(str(value).encode("utf-8", "replace")) + 1 for value in row.values())


def _unpacked(file: DataFile, size: int) -> int:
    """About how many bytes a file holds; for a compressed one from its beginning."""
    if file.compression is None:
        return size
    with opened(file) as stream:
        begin = len(stream.content.read(_EXPANSION_BYTES))
        return round(begin / max(stream.share, 1e-9))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, np.ndarray) or (
        isinstance(value, list) and value and all(type(item) is int for item in value)
    ):
        return "tokens"
    return "other"


def _text_field(
    dataset: DatasetConfig, fields: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> str | None:
    """The field that the study names, or that holds the text most likely."""
    if dataset.template is not None:
        return None
    if dataset.text_field is not None:
        return dataset.text_field
    texts = [name for name, kind in fields.items() if kind == "text"]
    for name in _TEXT_FIELDS:
        if name in texts:
            return name
    for name in TOKEN_FIELDS:
        if fields.get(name) == "tokens":
            return name
    lengths = {name: sum(len(str(row.get(name) or "")) for row in rows) for name in texts}
    return max(lengths, key=lambda name: lengths[name], default=None)


def _texts(
    rows: Sequence[Mapping[str, Any]], dataset: DatasetConfig, field: str | None, place: str
) -> tuple[list[str], int, int]:
    """Texts of rows, cut where they are long, with their full length; and the number of ids."""
    texts, characters, tokens = [], 0, 0
    for row in rows:
        if dataset.template is not None:
            value: Any = filled(row, dataset, place, "files")
        elif field is None or (field not in row and dataset.text_field is not None):
            raise ConfigError(
                f"{place}: has no field of text; it has "
                f"{', '.join(map(repr, list(row)[:10])) or 'none at all'}"
            )
        else:
            value = row.get(field)
        if isinstance(value, str):
            texts.append(value[:_MOST_CHARACTERS])
            characters += len(value)
        elif value is not None and _kind(value) == "tokens":
            tokens += len(value)
    return texts, characters, tokens
