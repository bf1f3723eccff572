"""The documents of a dataset, read from ``.jsonl`` and ``.txt`` files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._files import file_digest

_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Corpus:
    """The text of one dataset.

    Attributes:
        name: Name of the dataset.
        files: Its files, in order.
        digest: Digest of their contents.
    """

    name: str
    files: list[Path]
    digest: str


def corpus_of(config: StudyConfig, name: str) -> Corpus:
    """Find and digest the files of a dataset."""
    files = config.dataset_files(name)
    digest = hashlib.sha256()
    for file in files:
        if file.suffix not in (".jsonl", ".txt"):
            raise ConfigError(
                f"{config.source}: datasets.{name}.files: {file} is neither .jsonl nor .txt; "
                "convert it"
            )
        digest.update(f"{file.suffix}\0{file_digest(file)}\0".encode())
    return Corpus(name, files, digest.hexdigest())


def documents_of(corpus: Corpus) -> Iterator[str]:
    """Yield the documents of a dataset that are not empty."""
    for file in corpus.files:
        if file.suffix == ".txt":
            yield _decoded(file.read_bytes(), str(file))
            continue
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _text_of(line, f"{file}, line {number}")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{place}: is not UTF-8 (byte {error.start}); convert or remove it"
        ) from None


def _text_of(line: bytes, place: str) -> str:
    try:
        document = json.loads(_decoded(line, place))
    except (json.JSONDecodeError, RecursionError):
        raise ConfigError(f'{place}: is not JSON; each line must be {{"text": ...}}') from None
    text = document.get("text") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise ConfigError(f'{place}: has no "text" that is a string; correct or remove it')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f'{place}: "text" holds a lone surrogate; correct or remove it'
        ) from None
    return text


def batches_of(documents: Iterator[str]) -> Iterator[list[str]]:
    """Group documents that are not empty, by number and length, for the tokenizer."""
    batch: list[str] = []
    characters = 0
    for text in documents:
        if not text:
            continue
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
