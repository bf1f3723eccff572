"""What a dataset is read from, and the digest by which it is known again."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna_demix.config import DatasetConfig, StudyConfig
from optuna_demix.training.data.digests import Digests
from optuna_demix.training.data.files import DataFile, data_files, file_system
from optuna_demix.training.data.mds import mds_files
from optuna_demix.training.data.streams import explained
from optuna_demix.training.data.tables import hub_file

# What file systems say of a file's contents, the surest first.
_CONTENT_MARKS = ("sha256", "checksum", "md5Hash", "content_md5", "blob_id", "ETag", "etag")


@dataclass(frozen=True)
class Corpus:
    """The text or tokens of one dataset.

    Attributes:
        name: Name of the dataset.
        where: Its place in the study, for messages.
        dataset: What the study says of it.
        files: Its files, in order; a dataset of the hub is one.
        digest: Digest of their contents and of what is taken from them.
    """

    name: str
    where: str
    dataset: DatasetConfig
    files: tuple[DataFile, ...]
    digest: str


def corpus_of(config: StudyConfig, name: str) -> Corpus:
    """Find and digest the files of a dataset.

    Local files are known by their contents, those elsewhere by what their store says of them
    (checksum or ETag, else size and time), and a dataset of the hub by its commit.

    Raises:
        ConfigError: If there are none, or one is of no known format.
        DemixError: If a store does not answer, or a package is missing.
    """
    dataset = config.datasets.get(name, DatasetConfig())
    where = f"{config.source}: datasets.{name}"
    paths = config.dataset_files(name)
    files = data_files(dataset, paths, f"{where}.files")
    if dataset.hub is not None:
        files = [hub_file(dataset, where)]
    taken = (dataset.field_names, dataset.template, dataset.token_dtype, dataset.config)
    digest = hashlib.sha256(f"{taken}\0{dataset.split}\0".encode())
    digests = Digests(config.run_path / "cache" / "digests.json")
    for file in files:
        for part in parts_of(file):
            if part.is_local and part.format != "hub":
                mark = digests.of(Path(part.url))
            else:
                mark = _remote_mark(part)
            digest.update(f"{file.format}\0{part.compression}\0{mark}\0".encode())
    return Corpus(name, where, dataset, tuple(files), digest.hexdigest())


def parts_of(file: DataFile) -> Iterator[DataFile]:
    """The files that a file of a dataset is made of."""
    if file.format == "mds":
        yield from mds_files(file)
    elif file.format == "saved":
        fs, path = file_system(file.url, file.url)
        with explained(file):
            found = sorted(fs.find(path))
        for part in found:
            if posixpath.basename(part).startswith(("cache-", ".")):
                continue  # what `map` has left there
            yield DataFile(part if file.is_local else fs.unstrip_protocol(part), "saved")
    elif file.format == "megatron":
        yield file
        yield DataFile(file.url[:-4] + ".idx", "megatron")
    else:
        yield file


def _remote_mark(file: DataFile) -> str:
    if file.format == "hub":
        return file.url  # names the commit
    fs, path = file_system(file.url, file.url)
    with explained(file):
        facts = fs.info(path)
        for key in _CONTENT_MARKS:
            if facts.get(key):
                return f"{facts[key]} {facts.get('size')}"
        return str(fs.ukey(path))
