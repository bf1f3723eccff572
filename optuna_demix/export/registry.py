"""The export formats by name, and the two functions that write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna_demix.errors import ConfigError
from optuna_demix.export.formats import (
    energon,
    litdata,
    megatron,
    nanotron,
    olmo_core,
    plain,
    streaming,
    torchtitan,
)
from optuna_demix.export.sources import DataSource, Stage

Format = Callable[[Sequence[DataSource]], str]
StagedFormat = Callable[[Sequence[Stage], float | None], str]

FORMATS: Mapping[str, Format] = {
    "json": plain.to_json,
    "yaml": plain.to_yaml,
    "megatron": megatron.to_megatron,
    "megatron-bridge": megatron.to_megatron_bridge,
    "nemo": megatron.to_nemo,
    "nemotron": megatron.to_nemotron,
    "energon": energon.to_energon,
    "energon-epochs": energon.to_energon_epochs,
    "olmo-core": olmo_core.to_olmo_core,
    "olmo-core-composable": olmo_core.to_olmo_core_composable,
    "nanotron": nanotron.to_nanotron,
    "torchtitan": torchtitan.to_torchtitan,
    "torchtitan-grain": torchtitan.to_torchtitan_grain,
    "litdata": litdata.to_litdata,
    "mosaicml": streaming.to_mosaicml,
    "mosaicml-epochs": streaming.to_mosaicml_epochs,
    "huggingface": streaming.to_huggingface,
}
"""Formats by name."""

STAGED: Mapping[str, StagedFormat] = {
    "json": plain.stages_to_json,
    "yaml": plain.stages_to_yaml,
    "olmo-core-composable": olmo_core.stages_to_olmo_core_composable,
    "nanotron": nanotron.stages_to_nanotron,
}
"""Formats whose reader takes a whole run in stages."""

_WITH_COMMENTS = frozenset(FORMATS) - {"json", "megatron", "megatron-bridge", "nemotron"}


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
    return _commented(FORMATS[kind](sources), kind, comment)


def export_stages(
    stages: Sequence[Stage], kind: str, *, step_tokens: float | None = None, comment: str = ""
) -> str:
    """The text of a whole run in a format whose reader has stages.

    Args:
        stages: The stages in the order of the run.
        kind: One of :data:`STAGED`.
        step_tokens: Tokens of a training step: nanotron counts stages in steps, and JSON and
            YAML give them where it is known.
        comment: Lines to stand above the text, in formats that have comments.

    Raises:
        ConfigError: If the reader has no stages or cannot hold these.
    """
    if kind not in STAGED:
        raise ConfigError(
            f"the reader of {kind!r} has no stages; write one stage, or the whole run as one of "
            f"{', '.join(STAGED)}"
        )
    return _commented(STAGED[kind](stages, step_tokens), kind, comment)


def _commented(text: str, kind: str, comment: str) -> str:
    if comment and kind in _WITH_COMMENTS:
        text = "".join(f"# {line}\n" for line in comment.splitlines()) + text
    return text
