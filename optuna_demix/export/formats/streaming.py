"""Readers that stream examples: MosaicML Streaming and Hugging Face ``datasets``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna_demix.export.formats._text import entries_of, epochs_of, yaml_of
from optuna_demix.export.sources import DataSource


def to_mosaicml(sources: Sequence[DataSource]) -> str:
    """``streams`` of MosaicML Streaming, as LLM Foundry reads them; ``proportion`` of examples."""
    streams = {
        source.name: {"remote": source.path, "proportion": source.example_share}
        for source in sources
    }
    return yaml_of({"streams": streams})


def to_mosaicml_epochs(sources: Sequence[DataSource]) -> str:
    """``streams`` that repeat each dataset as often as the planned run sees it.

    An epoch of the dataset is then the whole run.

    Raises:
        ConfigError: If the epochs of a dataset are unknown.
    """
    epochs = epochs_of(sources, "mosaicml-epochs")
    streams = {s.name: {"remote": s.path, "repeat": epochs[s.name]} for s in sources}
    return yaml_of({"streams": streams})


def to_huggingface(sources: Sequence[DataSource]) -> str:
    """A Python module whose ``mixture()`` is a streaming dataset of Hugging Face ``datasets``.

    A streaming dataset is read only as far as it is drawn from. ``interleave_datasets`` of
    map-style datasets draws all indices in advance, until a source has been seen as a whole: too
    soon with the smallest source, or after billions of examples where a share is small.
    """
    entries = entries_of({source.path: source.example_share for source in sources})
    counts = [source.examples for source in sources]
    default = "" if None in counts else f" = {round(math.fsum(n for n in counts if n)):_}"
    return _HUGGINGFACE.format(entries=entries, default=default)


_HUGGINGFACE = '''\
from datasets import IterableDataset, interleave_datasets, load_dataset

# What load_dataset takes (a folder of data files, or a name on the hub), and its share of the
# training examples.
SOURCES = {{
{entries}}}


def mixture(n_examples: int{default}, seed: int = 0) -> IterableDataset:
    """Draw examples with the probabilities of SOURCES; a source that ends begins again."""
    streams = [load_dataset(path, split="train", streaming=True).repeat(None) for path in SOURCES]
    mixed = interleave_datasets(streams, probabilities=list(SOURCES.values()), seed=seed)
    return mixed.take(n_examples)
'''
