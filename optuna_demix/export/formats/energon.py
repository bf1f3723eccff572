"""Metadatasets of Megatron-Energon, which draws whole samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna_demix.export.formats._text import epochs_of, yaml_of
from optuna_demix.export.sources import DataSource


def to_energon(sources: Sequence[DataSource]) -> str:
    """A ``MetadatasetV2`` that blends by weight: shares of the samples, not of the tokens.

    Paths are those of prepared datasets; relative ones start at the file.
    """
    blend = [{"weight": s.example_share, "path": s.path} for s in sources]
    return _metadataset({"blend": blend})


def to_energon_epochs(sources: Sequence[DataSource]) -> str:
    """A ``MetadatasetV2`` that repeats each dataset as often as the planned run sees it.

    Read with ``repeat=False`` it ends after the run's budget.

    Raises:
        ConfigError: If the epochs of a dataset are unknown.
    """
    epochs = epochs_of(sources, "energon-epochs")
    blend = [{"repetitions": epochs[s.name], "path": s.path} for s in sources]
    return _metadataset({"blend_epochized": blend})


def _metadataset(train: Mapping[str, Any]) -> str:
    return yaml_of(
        {
            "__module__": "megatron.energon",
            "__class__": "MetadatasetV2",
            "splits": {"train": dict(train)},
        }
    )
