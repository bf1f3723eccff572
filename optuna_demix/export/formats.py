"""The export formats: pure functions from the sources of a mixture to the text of a file.

Each format names the reader it was written for. Frameworks that draw whole examples get shares
of examples, all others shares of tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from optuna_demix.errors import ConfigError
from optuna_demix.export.sources import DataSource

Format = Callable[[Sequence[DataSource]], str]

_SLACK = 1.001  # a limit of repetitions must not fail by rounding


def export(sources: Sequence[DataSource], kind: str, *, comment: str = "") -> str:
    """The text of a mixture in a format.

    Args:
        sources: The mixture.
        kind: One of :data:`FORMATS`.
        comment: Lines to stand above the text, in formats that have comments.

    Raises:
        ConfigError: If the format is unknown or cannot hold the mixture.
    """
    if kind not in FORMATS:
        raise ConfigError(f"export format {kind!r} is unknown; use one of {', '.join(FORMATS)}")
    text = FORMATS[kind](sources)
    if comment and kind in _WITH_COMMENTS:
        text = "".join(f"# {line}\n" for line in comment.splitlines()) + text
    return text


def to_json(sources: Sequence[DataSource]) -> str:
    """Plain JSON: shares of tokens and examples, path, epochs and examples of each dataset."""
    return json.dumps(_plain(sources), indent=2) + "\n"


def to_yaml(sources: Sequence[DataSource]) -> str:
    """Plain YAML of the same content."""
    return _yaml(_plain(sources))


def to_megatron(sources: Sequence[DataSource]) -> str:
    """File of Megatron-LM's ``--data-args-path``: weight and prefix in turn.

    The file is split at white space, so that its words may also follow ``--data-path``. Prefixes
    are those of ``.bin`` and ``.idx`` files, without their ending.
    """
    _without_space(sources, "Megatron-LM")
    return "".join(f"{source.share:.6f} {source.path}\n" for source in sources)


def to_nemo(sources: Sequence[DataSource]) -> str:
    """``paths`` of NeMo's Megatron datasets: a flat list of weights and prefixes, as strings."""
    flat = [item for source in sources for item in (f"{source.share:.6f}", source.path)]
    return _yaml({"paths": flat})


def to_olmo_core(sources: Sequence[DataSource]) -> str:
    """A ``SourceMixtureList`` of OLMo-core.

    Where the size of a dataset and the budget are known, ``max_repetition_ratio`` allows as many
    epochs as the mixture needs: OLMo-core refuses a mixture that asks for more.
    """
    entries = []
    for source in sources:
        entry: dict[str, Any] = {
            "source_name": source.name,
            "target_ratio": source.share,
            "paths": [source.path],
        }
        if source.epochs is not None and source.epochs * _SLACK > 1.0:
            entry["max_repetition_ratio"] = math.ceil(1000 * source.epochs * _SLACK) / 1000
        entries.append(entry)
    return _yaml({"sources": entries})


def to_nanotron(sources: Sequence[DataSource]) -> str:
    """``dataset`` of a data stage of nanotron: tokenized folders and their weights."""
    dataset = {
        "dataset_folder": [source.path for source in sources],
        "dataset_weights": [source.share for source in sources],
    }
    return _yaml({"dataset": dataset})


def to_mosaicml(sources: Sequence[DataSource]) -> str:
    """``streams`` of MosaicML Streaming, as LLM Foundry reads them; ``proportion`` of examples."""
    streams = {
        source.name: {"remote": source.path, "proportion": source.example_share}
        for source in sources
    }
    return _yaml({"streams": streams})


def to_huggingface(sources: Sequence[DataSource]) -> str:
    """A Python module whose ``mixture()`` is a streaming dataset of Hugging Face ``datasets``.

    A streaming dataset is read only as far as it is drawn from. ``interleave_datasets`` of
    map-style datasets draws all indices in advance, until a source has been seen as a whole: too
    soon with the smallest source, or after billions of examples where a share is small.
    """
    entries = "".join(f"    {s.path!r}: {s.example_share!r},\n" for s in sources)
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


FORMATS: Mapping[str, Format] = {
    "json": to_json,
    "yaml": to_yaml,
    "megatron": to_megatron,
    "nemo": to_nemo,
    "olmo-core": to_olmo_core,
    "nanotron": to_nanotron,
    "mosaicml": to_mosaicml,
    "huggingface": to_huggingface,
}
"""Formats by name."""

_WITH_COMMENTS = frozenset(FORMATS) - {"json", "megatron"}


def _plain(sources: Sequence[DataSource]) -> dict[str, Any]:
    return {
        "datasets": {
            source.name: {
                "share": source.share,
                "example_share": source.example_share,
                "path": source.path,
                **({} if source.epochs is None else {"epochs": round(source.epochs, 6)}),
                **({} if source.examples is None else {"examples": round(source.examples)}),
            }
            for source in sources
        }
    }


def _without_space(sources: Sequence[DataSource], reader: str) -> None:
    for source in sources:
        if len(source.path.split()) != 1:
            raise ConfigError(
                f"path {source.path!r} of {source.name!r}: {reader} splits at white space; "
                "give a path without it"
            )


def _yaml(content: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
    return text
