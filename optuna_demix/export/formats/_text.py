"""What several formats write alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from optuna_demix.errors import ConfigError
from optuna_demix.export.sources import DataSource, Stage

_SLACK = 1.001  # a limit of repetitions must not fail by rounding


def yaml_of(content: Mapping[str, Any]) -> str:
    """YAML in the order of the mapping, one line for each value."""
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
    return text


def entries_of(content: Mapping[str, Any], *, indent: int = 4) -> str:
    """The entries of a Python dictionary, a line each."""
    return "".join(f"{' ' * indent}{key!r}: {value!r},\n" for key, value in content.items())


def repetitions(epochs: float | None) -> float | None:
    """The limit of repetitions that lets a dataset be seen so often; ``None`` if it needs none."""
    if epochs is None or epochs * _SLACK <= 1.0:
        return None
    return math.ceil(1000 * epochs * _SLACK) / 1000


def epochs_of(sources: Sequence[DataSource], reader: str) -> dict[str, float]:
    """How often each dataset is seen, by name.

    Raises:
        ConfigError: If that is unknown for one.
    """
    missing = [source.name for source in sources if source.epochs is None]
    if missing:
        raise ConfigError(
            f"{reader} is told epochs, which follow from mixture.budget and the tokens of each "
            f"dataset; unknown for {', '.join(missing)}"
        )
    return {s.name: round(s.epochs, 6) for s in sources if s.epochs is not None}


def start_steps(stages: Sequence[Stage], step_tokens: float) -> list[int]:
    """The training step with which each stage starts, the first with 1.

    Raises:
        ConfigError: If the run's budget is unknown, or a stage has no step of its own.
    """
    if not 0.0 < step_tokens < math.inf:
        raise ConfigError(f"tokens of a training step must be positive, got {step_tokens:g}")
    steps, before = [], 0.0
    for stage in stages:
        if stage.tokens is None:
            raise ConfigError("steps follow from the budget of the run; set mixture.budget")
        start, end = round(before / step_tokens), round((before + stage.tokens) / step_tokens)
        if start == end:
            raise ConfigError(
                f"phase {stage.name!r} has {stage.tokens:g} tokens, less than a training step of "
                f"{step_tokens:g}"
            )
        steps.append(1 + start)
        before += stage.tokens
    return steps
