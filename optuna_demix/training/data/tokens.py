"""Datasets as blocks of tokens: tokenized once, or mapped where they lie as tokens already."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from optuna_demix._files import write_whole
from optuna_demix._wording import counted
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job
from optuna_demix.training.data.blocks import Blocks
from optuna_demix.training.data.corpus import Corpus
from optuna_demix.training.data.files import TOKENIZED, DataFile
from optuna_demix.training.data.shards import Shard, shard_of
from optuna_demix.training.data.streams import explained
from optuna_demix.training.data.tokenizing import write_tokens

CACHE_FORMAT = 2
_CHUNK = 1 << 22  # ids that are checked at once


def blocks_of(job: Job, corpus: Corpus) -> Blocks:
    """The blocks of a dataset.

    Text is tokenized once and kept under the digest of text and tokenizer; what a killed process
    has left is gone on with. Token ids in local files stay where they are and are mapped.

    Raises:
        ConfigError: If there is no text, or less than a block, or ids are not the tokenizer's.
        DemixError: If a file cannot be reached.
    """
    from filelock import FileLock

    key = hashlib.sha256(f"{CACHE_FORMAT}\0{corpus.digest}\0{job.vocabulary.digest}".encode())
    cache = job.config.run_path / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"tokens-{key.hexdigest()[:32]}"
    if all(file.format in TOKENIZED and _is_mappable(file) for file in corpus.files):
        shards = [_shard(corpus, file) for file in corpus.files]
        checked = cache / f"{stem}.checked"
        if not checked.exists():
            with FileLock(cache / f"{stem}.lock"):
                if not checked.exists():
                    _check(job, corpus, shards)
                    write_whole(checked, "")
    else:
        file = cache / f"{stem}.npy"
        if not file.exists():
            with FileLock(cache / f"{stem}.lock"):
                if not file.exists():
                    write_tokens(file, corpus, job.vocabulary, job.report)
        with explained(DataFile(str(file), "tokens")):
            shards = [_own_shard(file, corpus)]
    blocks = Blocks(shards, job.block_tokens)
    if len(blocks) == 0:
        raise ConfigError(
            f"{corpus.where}.files: {blocks.tokens:,} tokens are less than one sequence of "
            f"{job.block_tokens:,}; add text or lower training.sequence_length"
        )
    return blocks


def _is_mappable(file: DataFile) -> bool:
    return file.is_local and file.compression is None


def _shard(corpus: Corpus, file: DataFile) -> Shard:
    with explained(file):
        return shard_of(file, corpus.dataset, corpus.where)


def _own_shard(file: Path, corpus: Corpus) -> Shard:
    try:
        return shard_of(DataFile(str(file), "tokens"), corpus.dataset, corpus.where)
    except ConfigError:
        raise ConfigError(f"{file}: is damaged; delete it, it is made again") from None


def _check(job: Job, corpus: Corpus, shards: list[Shard]) -> None:
    """Compare all ids with the vocabulary, in chunks."""
    vocabulary, total, done, ends = job.vocabulary, sum(s.length for s in shards), 0, 0
    what = f"{corpus.name}: checking {counted(len(shards), 'file')} of tokens"
    with job.report.step(what, unit="token", total=total) as step:
        for shard in shards:
            ids = shard.mapped()
            for start in range(0, len(ids), _CHUNK):
                chunk = ids[start : start + _CHUNK]
                vocabulary.check(chunk, str(shard.file), start)
                ends += int(np.count_nonzero(chunk == vocabulary.eos))
                step.update(done + start + len(chunk))
            done += len(ids)
    if not ends:
        job.report(
            f"{corpus.name}: no document ends with the tokenizer's eos token (id "
            f"{vocabulary.eos}); they run into each other"
        )
