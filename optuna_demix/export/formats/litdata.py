"""A combined dataset of LitData."""

from __future__ import annotations

from collections.abc import Sequence

from optuna_demix.export.formats._text import entries_of
from optuna_demix.export.sources import DataSource


def to_litdata(sources: Sequence[DataSource]) -> str:
    """A Python module whose ``mixture()`` is a ``CombinedStreamingDataset`` of blocks of tokens.

    Datasets that ``optimize`` wrote with a ``TokensLoader`` are drawn in blocks of one length,
    so that the weights are shares of tokens.
    """
    entries = entries_of({source.path: source.share for source in sources})
    return _LITDATA.format(entries=entries)


_LITDATA = '''\
from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader

# Where optimized tokens lie, and their share of the training tokens.
SOURCES = {{
{entries}}}


def mixture(block_size: int, seed: int = 42) -> CombinedStreamingDataset:
    """Draw blocks of tokens with the probabilities of SOURCES.

    An epoch ends with the first source that does; the next one has the same shares and another
    order. Iterate the loader again until the run has had its tokens.
    """
    datasets = [
        StreamingDataset(
            path, item_loader=TokensLoader(block_size), shuffle=True, drop_last=True, seed=seed
        )
        for path in SOURCES
    ]
    weights = list(SOURCES.values())
    return CombinedStreamingDataset(datasets, seed=seed, weights=weights, iterate_over_all=False)
'''
