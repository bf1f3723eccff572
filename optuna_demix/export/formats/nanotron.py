"""Data stages of nanotron: tokenized folders and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.export.formats._text import start_steps, yaml_of
from optuna_demix.export.sources import DataSource, Stage


def to_nanotron(sources: Sequence[DataSource]) -> str:
    """``dataset`` of a data stage."""
    return yaml_of({"dataset": _dataset(sources)})


def stages_to_nanotron(stages: Sequence[Stage], step_tokens: float | None = None) -> str:
    """``data_stages`` of a run, each with the training step that it starts with.

    Raises:
        ConfigError: If the tokens of a step or of the run are unknown, or a stage is shorter
            than a step.
    """
    if step_tokens is None:
        raise ConfigError(
            "nanotron counts stages in training steps; give the tokens of a step (--step-tokens)"
        )
    content = [
        {
            "name": stage.name,
            "start_training_step": step,
            "data": {"dataset": _dataset(stage.sources), "num_loading_workers": 1, "seed": 42},
        }
        for stage, step in zip(stages, start_steps(stages, step_tokens), strict=True)
    ]
    return yaml_of({"data_stages": content})


def _dataset(sources: Sequence[DataSource]) -> dict[str, Any]:
    return {
        "dataset_folder": [source.path for source in sources],
        "dataset_weights": [source.share for source in sources],
    }
