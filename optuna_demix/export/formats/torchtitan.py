"""Data loaders of torchtitan: the interleaved one of its releases, and the later one on Grain.

Both pack texts into sequences of one length before they mix, so that weights are shares of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna_demix.errors import ConfigError
from optuna_demix.export.formats._text import entries_of
from optuna_demix.export.sources import DataSource


def to_torchtitan(sources: Sequence[DataSource]) -> str:
    """A Python module whose ``dataloader()`` configures the interleaved loader.

    torchtitan knows its datasets by name, in small letters.

    Raises:
        ConfigError: If two datasets have one name then.
    """
    names: dict[str, str] = {}
    for source in sources:
        other = names.setdefault(source.name.lower(), source.name)
        if other != source.name:
            raise ConfigError(
                f"torchtitan reads {other!r} and {source.name!r} as one name; rename one"
            )
    entries = entries_of({s.name.lower(): (s.path, s.share) for s in sources})
    return _INTERLEAVED.format(entries=entries)


def to_torchtitan_grain(sources: Sequence[DataSource]) -> str:
    """A Python module whose ``mixture()`` is a ``DatasetMixConfig`` of packed texts."""
    entries = entries_of({source.path: source.share for source in sources})
    return _GRAIN.format(entries=entries)


_INTERLEAVED = '''\
from functools import partial

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

# Name: what load_dataset takes (a folder of data files, or a name on the hub), and its share of
# the training tokens.
SOURCES = {{
{entries}}}


def text(example: dict) -> str:
    return example["text"]


for name, (path, _) in SOURCES.items():
    loader = partial(load_dataset, split="train", streaming=True)
    DATASETS[name] = DatasetConfig(path=path, loader=loader, sample_processor=text)


def dataloader(**options) -> InterleavedHuggingFaceTextDataLoader.Config:
    """Draw packed sequences with the probabilities of SOURCES; a source that ends begins again."""
    sources = [
        HFDataSource(dataset=name, weight=share, infinite=True)
        for name, (_, share) in SOURCES.items()
    ]
    return InterleavedHuggingFaceTextDataLoader.Config(sources=sources, **options)
'''

_GRAIN = '''\
from torchtitan.components.data import (
    ConcatThenSplitPackingConfig,
    DatasetMixConfig,
    HuggingFaceStreamingSource,
    SingleDatasetConfig,
    WeightedDataset,
)
from torchtitan.hf_datasets.text_datasets import TextProcessor

# What load_dataset takes (a folder of data files, or a name on the hub), and its share of the
# training tokens.
SOURCES = {{
{entries}}}


def text(example: dict) -> str:
    return example["text"]


def packed(path: str) -> ConcatThenSplitPackingConfig:
    """Rows of one length, so that weights are shares of tokens."""
    dataset = SingleDatasetConfig(
        source=HuggingFaceStreamingSource.Config(path=path, split="train"),
        processor=TextProcessor.Config(text_fn=text),
        post_filters=(lambda sample: sample is not None,),
    )
    return ConcatThenSplitPackingConfig(dataset=dataset)


def mixture() -> DatasetMixConfig:
    """For GrainDataLoader.Config(dataset=mixture()), which lets sources that end begin again."""
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=packed(path), weight=share) for path, share in SOURCES.items()
        )
    )
'''
