"""Tokenize a dataset into one file, on all cores, from where it was left."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from optuna_demix._files import sync, write_whole
from optuna_demix._progress import Report, Step
from optuna_demix._wording import counted
from optuna_demix.errors import ConfigError
from optuna_demix.training._files import read_json
from optuna_demix.training.data.corpus import Corpus
from optuna_demix.training.data.documents import Piece, pieces_of
from optuna_demix.training.data.streams import Position
from optuna_demix.training.data.vocabulary import Vocabulary

_BATCH_PIECES = 1024
_BATCH_CHARACTERS = 1 << 20
_AT_ONCE = 3  # one batch is read and one written while the tokenizer has all cores for another
_SAVE_EVERY = 1 << 23  # tokens between two places from which a killed process goes on


@dataclass
class _Batch:
    """Pieces that are tokenized together.

    Attributes:
        pieces: Texts, and whether documents end with them; or token ids.
        file: Number of the file they are from.
        taken: Pieces of that file up to here.
        read: Part of the whole corpus that is read, 0 to 1.
    """

    file: int
    taken: int = 0
    read: float = 0.0
    pieces: list[Piece] = field(default_factory=list)


def write_tokens(file: Path, corpus: Corpus, vocabulary: Vocabulary, report: Report) -> None:
    """Tokenize a dataset into a file of NumPy.

    Documents end with the tokenizer's end token; token ids are taken as they are. The caller
    holds a lock on the file.

    Args:
        file: The file, which appears when it is whole.
        corpus: The dataset.
        vocabulary: The tokenizer.
        report: Where progress is told.

    Raises:
        ConfigError: If there is no text in it, or a file cannot be used.
    """
    aside, saved = file.with_name(f".{file.name}.new"), file.with_name(f".{file.name}.saved")
    state = _state(aside, saved)
    what = f"{corpus.name}: tokenizing {counted(len(corpus.files), 'file')}"
    try:
        with (
            report.step(what, unit="token") as step,
            open(aside, "r+b" if state else "w+b") as stream,
        ):
            length = _write(stream, saved, state or {}, corpus, vocabulary, step)
            if length == 0:
                raise ConfigError(
                    f"dataset {corpus.name!r}: no text in {corpus.files[0]}"
                    + (f" and {len(corpus.files) - 1} more files" if corpus.files[1:] else "")
                    + "; add some"
                )
            _sync(stream, length, vocabulary.dtype)
    except ConfigError:  # with the data mended, nothing of this is of use
        aside.unlink(missing_ok=True)
        saved.unlink(missing_ok=True)
        raise
    os.replace(aside, file)
    sync(file.parent)
    with suppress(OSError):
        saved.unlink(missing_ok=True)


def _state(aside: Path, saved: Path) -> dict[str, int] | None:
    """Where a killed process was when it last saved, if that can be gone on from."""
    state = read_json(saved)
    if state is None or not aside.exists() or aside.stat().st_size < state["bytes"]:
        return None
    return state


def _write(
    stream: BinaryIO,
    saved: Path,
    state: dict[str, int],
    corpus: Corpus,
    vocabulary: Vocabulary,
    step: Step,
) -> int:
    length = state.get("tokens", 0)
    if state:
        stream.seek(state["bytes"])
        stream.truncate()
        step.skip(length)
    else:
        _write_header(stream, 0, vocabulary.dtype)
    last = length
    for batch, ids in _tokenized(corpus, vocabulary, state):
        stream.write(ids.tobytes())
        length += len(ids)
        share = batch.read
        step.update(length, round(length / share) if share > 0.01 else None)
        if len(corpus.files) > 1:
            step.note(f"file {batch.file + 1:,} of {len(corpus.files):,}")
        if length - last >= _SAVE_EVERY:
            last = length
            _sync(stream, length, vocabulary.dtype)
            place = {"file": batch.file, "taken": batch.taken}
            write_whole(saved, json.dumps({"tokens": length, "bytes": stream.tell(), **place}))
    return length


def _sync(stream: BinaryIO, length: int, dtype: np.dtype[Any]) -> None:
    """Bring what is written to the disk, under a header that fits."""
    stream.seek(0)
    _write_header(stream, length, dtype)
    stream.seek(0, os.SEEK_END)
    stream.flush()
    os.fsync(stream.fileno())


def _write_header(stream: Any, length: int, dtype: np.dtype[Any]) -> None:
    # numpy pads the header for a longer first axis: it can be written again in place.
    np.lib.format.write_array_header_1_0(
        stream,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)},
    )


def _tokenized(
    corpus: Corpus, vocabulary: Vocabulary, state: dict[str, int]
) -> Iterator[tuple[_Batch, npt.NDArray[Any]]]:
    """Batches with their ids, in order, while the next ones are read and tokenized."""
    # The tokenizer is Rust that uses all cores and lets other threads run meanwhile: processes
    # would only add copies of it, and of each text.
    waiting: deque[tuple[_Batch, Future[npt.NDArray[Any]]]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tokenize") as pool:
        try:
            for batch in _batches(corpus, state):
                place = str(corpus.files[batch.file])
                future = pool.submit(_ids_of, batch.pieces, vocabulary, place)
                batch.pieces = []
                waiting.append((batch, future))
                if len(waiting) > _AT_ONCE:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batches(corpus: Corpus, state: dict[str, int]) -> Iterator[_Batch]:
    for number in range(state.get("file", 0), len(corpus.files)):
        position, taken = Position(), 0
        pieces = pieces_of(corpus.files[number], corpus.dataset, corpus.where, position)
        if state and number == state["file"]:
            taken = state["taken"]
            pieces = islice(pieces, taken, None)
        batch, size = _Batch(number), 0
        for piece in pieces:
            batch.pieces.append(piece)
            size += len(piece[0])
            taken += 1
            if len(batch.pieces) >= _BATCH_PIECES or size >= _BATCH_CHARACTERS:
                batch.taken = taken
                batch.read = (number + position.share) / len(corpus.files)
                yield batch
                batch, size = _Batch(number), 0
        if batch.pieces:
            batch.taken, batch.read = taken, (number + 1) / len(corpus.files)
            yield batch


def _ids_of(pieces: list[Piece], vocabulary: Vocabulary, place: str) -> npt.NDArray[Any]:
    encoded = iter(vocabulary.encode([text for text, _ in pieces if isinstance(text, str)]))
    parts = []
    for piece, ends in pieces:
        if isinstance(piece, str):
            ids = next(encoded)
            if ends:
                ids.append(vocabulary.eos)
            parts.append(np.array(ids, vocabulary.dtype))
        else:
            vocabulary.check(piece, place)
            parts.append(piece.astype(vocabulary.dtype))
    return np.concatenate(parts)
