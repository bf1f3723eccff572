"""Documents that follow from data and seeds alone, not from what a cache holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets.fingerprint import get_temporary_cache_files_directory


@contextmanager
def processed_anew() -> Iterator[None]:
    """Let ``datasets`` keep what it processes in a folder of this call alone.

    ``datasets`` keeps the result of a ``map`` beside the data, by its function. One that shuffles,
    as GPQA's does with the answers, would give what it once drew on this host, under whatever
    seed. The data themselves come from their cache as always.
    """
    folder = Path(tempfile.mkdtemp(dir=_session_folder()))
    usual = datasets.Dataset._get_cache_file_path

    def private(dataset: datasets.Dataset, fingerprint: str) -> str:
        return str(folder / Path(usual(dataset, fingerprint)).name)

    datasets.Dataset._get_cache_file_path = private
    try:
        yield
    finally:
        datasets.Dataset._get_cache_file_path = usual


def _session_folder() -> str:
    """A folder that ``datasets`` deletes when the process ends; its files may stay mapped."""
    folder: str = get_temporary_cache_files_directory()
    return folder
