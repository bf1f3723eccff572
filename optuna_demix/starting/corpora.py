"""The datasets below a folder: their formats, their text and about how many tokens they have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna_demix._wording import unknown_name
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.starting.folders import listed, relative
from optuna_demix.starting.names import renamed, usable_names
from optuna_demix.starting.sizes import in_words, rounded

if TYPE_CHECKING:
    from optuna_demix.training.data.sample import Sample

GENERAL_NAMES = ("general", "web", "cc", "commoncrawl", "common_crawl", "c4", "dclm", "fineweb")
"""Datasets that are general data where nobody says which one is."""

_MOST = 64

Encode = Callable[[list[str]], list[list[int]]]
"""Texts to token ids."""


@dataclass(frozen=True)
class Dataset:
    """One corpus.

    Attributes:
        path: Its folder or file.
        sample: What a sample of it shows.
        token_dtype: Type of its token ids, where its files do not say it.
    """

    path: Path
    sample: Sample
    token_dtype: Literal["uint16", "uint32"] | None = None

    def fields(self, folder: Path) -> dict[str, Any]:
        """Its fields in a study that lies in a folder, tokens left out."""
        fields: dict[str, Any] = {"files": [relative(self.path, folder)]}
        text = self.sample.text_field
        if text is not None and text != "text":
            fields["text_field"] = text
        if self.token_dtype is not None:
            fields["token_dtype"] = self.token_dtype
        return fields

    def size(self, encode: Encode) -> tuple[int | None, str]:
        """Its tokens, where they can be told, and in words how they are known."""
        tokens = self.sample.estimated_tokens(encode)
        if tokens is None:
            return None, self.sample.format
        if self.sample.tokens is not None and self.sample.share == 1:
            return tokens, f"{self.sample.format}, {in_words(tokens)} tokens"
        estimated = rounded(tokens)
        share = 100 * self.sample.share
        read = "all" if share > 99 else f"{share:.2g} %"
        kind = self.sample.format
        return estimated, f"{kind}, about {in_words(estimated)} tokens, from {read} of it"


@dataclass(frozen=True)
class Datasets:
    """What a folder of data holds.

    Attributes:
        by_name: The corpora, by their names in the study.
        notes: Lines for the user: what was left out or renamed.
    """

    by_name: Mapping[str, Dataset]
    notes: list[str] = field(default_factory=list)


def find_datasets(
    folder: Path, token_dtype: Literal["uint16", "uint32"] | None = None
) -> Datasets:
    """Find a dataset in each subfolder and each file, and read a sample of it.

    Args:
        folder: The folder.
        token_dtype: Type of token ids in files that do not say it.

    Raises:
        InputError: If there is none, or one cannot be read.
    """
    from optuna_demix.config import DatasetConfig
    from optuna_demix.training.data.files import stem_of
    from optuna_demix.training.data.sample import sample_of

    flag = f"--data {folder}"
    places: dict[str, Path] = {}
    notes: list[str] = []
    for entry in listed(folder, "--data"):
        if entry.suffix == ".idx":  # goes with the .bin beside it
            continue
        name = entry.name if entry.is_dir() else stem_of(entry.name)
        if name is None:
            notes.append(f"left out {entry}: its name is not that of a file of data")
            continue
        if name in places:
            name = entry.name
        places[name] = entry
    if not places:
        raise InputError(f"{flag}: holds no data; put one folder or file for each dataset into it")
    if len(places) > _MOST:
        raise InputError(
            f"{flag}: holds {len(places)} files and folders, each of which would be a dataset; "
            "put the files of each dataset into a folder of its own"
        )
    names = usable_names(places)
    notes += renamed(names)
    by_name = {}
    for found, place in places.items():
        where = f"{flag}: {ascii(found)[1:-1]}"
        files = [os.path.abspath(place)]
        try:
            sample = sample_of(DatasetConfig(files=files), folder, where=where)
        except ConfigError:
            if token_dtype is None:
                raise
            config = DatasetConfig(files=files, token_dtype=token_dtype)
            sample = sample_of(config, folder, where=where)
            by_name[names[found]] = Dataset(place, sample, token_dtype)
        else:
            by_name[names[found]] = Dataset(place, sample)
    return Datasets(by_name, notes)


def general_of(names: Mapping[str, Any], wanted: str | None) -> str | None:
    """The general dataset: the one that is wanted, or the one whose name says so."""
    if wanted is not None:
        if wanted == "none":
            return None
        if wanted not in names:
            raise InputError(f"--general: {unknown_name(wanted, names, 'dataset')}")
        return wanted
    return next((name for name in names if name.casefold() in GENERAL_NAMES), None)
