"""Plain JSON and YAML, which hold all that is known about a mixture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from optuna_demix.export.formats._text import start_steps, yaml_of
from optuna_demix.export.sources import DataSource, Stage


def to_json(sources: Sequence[DataSource]) -> str:
    """Plain JSON: shares of tokens and examples, path, epochs and examples of each dataset."""
    return _json(_plain(sources))


def to_yaml(sources: Sequence[DataSource]) -> str:
    """Plain YAML of the same content."""
    return yaml_of(_plain(sources))


def stages_to_json(stages: Sequence[Stage], step_tokens: float | None = None) -> str:
    """Plain JSON of a run: its stages in order, with share, start, tokens and mixture of each."""
    return _json(_plain_stages(stages, step_tokens))


def stages_to_yaml(stages: Sequence[Stage], step_tokens: float | None = None) -> str:
    """Plain YAML of the same content."""
    return yaml_of(_plain_stages(stages, step_tokens))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


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


def _plain_stages(stages: Sequence[Stage], step_tokens: float | None) -> dict[str, Any]:
    steps = None if step_tokens is None else start_steps(stages, step_tokens)
    phases, before = [], 0.0
    for index, stage in enumerate(stages):
        phase: dict[str, Any] = {"name": stage.name, "share": stage.share}
        if stage.tokens is not None:
            phase |= {"start_token": round(before), "tokens": round(stage.tokens)}
            before += stage.tokens
        if steps is not None:
            phase["start_step"] = steps[index]
        phases.append(phase | _plain(stage.sources))
    return {"phases": phases}
