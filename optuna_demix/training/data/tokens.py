"""Datasets as blocks of tokens: tokenized once, kept under the digest of text and tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix._files import whole_file
from optuna_demix._progress import Step
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job
from optuna_demix.training.data.text import Corpus, batches_of, documents_of
from optuna_demix.training.data.vocabulary import Vocabulary

CACHE_FORMAT = 1
Blocks = npt.NDArray[np.unsignedinteger[Any]]  # (n, sequence_length), memory-mapped


def blocks_of(job: Job, corpus: Corpus) -> Blocks:
    """The blocks of a dataset, tokenized once and kept under the digest of text and tokenizer.

    Returns:
        Token ids, (n, sequence_length), memory-mapped; the rest of less than a block is left out.
    """
    from filelock import FileLock

    key = hashlib.sha256(f"{CACHE_FORMAT}\0{corpus.digest}\0{job.vocabulary.digest}".encode())
    file = job.config.run_path / "cache" / f"tokens-{key.hexdigest()[:32]}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        with FileLock(f"{file}.lock"):
            if not file.exists():
                what = f"{corpus.name}: tokenizing {len(corpus.files)} file(s)"
                with job.report.step(what, unit="token") as tokens:
                    _write_tokens(file, corpus, job.vocabulary, tokens)
    try:
        tokens = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError:
        raise ConfigError(f"{file}: is damaged; delete it, it is made again") from None
    rows = len(tokens) // job.block_tokens
    if rows == 0:
        raise ConfigError(
            f"{job.config.source}: datasets.{corpus.name}.files: {len(tokens):,} tokens are less "
            f"than one sequence of {job.block_tokens:,}; add text or lower "
            "training.sequence_length"
        )
    blocks: Blocks = tokens[: rows * job.block_tokens].reshape(rows, job.block_tokens)
    return blocks


def _write_tokens(file: Path, corpus: Corpus, vocabulary: Vocabulary, tokens: Step) -> None:
    length = 0
    # Under a lock: what a killed process left there is overwritten.
    with whole_file(file, aside=file.with_name(f".{file.name}.new")) as stream:
        _write_header(stream, length, vocabulary.dtype)
        for batch in batches_of(documents_of(corpus)):
            for ids in vocabulary.encode(batch):
                ids.append(vocabulary.eos)
                stream.write(np.asarray(ids, dtype=vocabulary.dtype).tobytes())
                length += len(ids)
            tokens.update(length)
        if length == 0:
            raise ConfigError(
                f"dataset {corpus.name!r}: no text in {corpus.files[0]}"
                + (f" and {len(corpus.files) - 1} more files" if corpus.files[1:] else "")
                + "; add some"
            )
        stream.seek(0)
        _write_header(stream, length, vocabulary.dtype)


def _write_header(stream: Any, length: int, dtype: np.dtype[Any]) -> None:
    # numpy pads the header for a longer first axis: it can be written again in place.
    np.lib.format.write_array_header_1_0(
        stream,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)},
    )
