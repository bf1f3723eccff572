"""Blends of Megatron-LM and of what is built on Megatron core: NeMo, Megatron-Bridge, Nemotron.

Prefixes are those of ``.bin`` and ``.idx`` files, without their ending.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from optuna_demix.errors import ConfigError
from optuna_demix.export.formats._text import yaml_of
from optuna_demix.export.sources import DataSource


def to_megatron(sources: Sequence[DataSource]) -> str:
    """File of Megatron-LM's ``--data-args-path``: weight and prefix in turn.

    The file is split at white space, so that its words may also follow ``--data-path``.
    """
    _without_space(sources, "Megatron-LM")
    return "".join(f"{source.share:.6f} {source.path}\n" for source in sources)


def to_megatron_bridge(sources: Sequence[DataSource]) -> str:
    """JSON of ``per_split_data_args_path`` of Megatron-Bridge, Nemotron and Megatron-LM.

    The reader asks for all three splits; validation and test data are for the user to fill in.
    """
    return json.dumps({"train": _flat(sources), "valid": None, "test": None}, indent=2) + "\n"


def to_nemo(sources: Sequence[DataSource]) -> str:
    """``paths`` of NeMo's Megatron datasets: a flat list of weights and prefixes, as strings."""
    return yaml_of({"paths": _flat(sources)})


def to_nemotron(sources: Sequence[DataSource]) -> str:
    """``DataBlend`` of Nemotron's data preparation, which keeps the weights in what it writes.

    Paths are those of the texts: ``hf://repository``, ``s3://bucket/prefix`` or a local path.
    """
    datasets = [{"name": s.name, "path": s.path, "weight": s.share} for s in sources]
    return json.dumps({"datasets": datasets}, indent=2) + "\n"


def _flat(sources: Sequence[DataSource]) -> list[str]:
    return [item for source in sources for item in (f"{source.share:.6f}", source.path)]


def _without_space(sources: Sequence[DataSource], reader: str) -> None:
    for source in sources:
        if len(source.path.split()) != 1:
            raise ConfigError(
                f"path {source.path!r} of {source.name!r}: {reader} splits at white space; "
                "give a path without it"
            )
