"""Checks components that another trainer has made, by reading every weight of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optuna_demix._progress import Report
from optuna_demix.errors import ComponentError
from optuna_demix.training._files import read_json
from optuna_demix.training._record import RECORD_FILE

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig
    from optuna_demix.merging import ComponentSet

STATE_FILE = "trainer_state.json"
"""What transformers' Trainer says of a run; plans for it keep it beside the weights."""


@dataclass(frozen=True)
class Returned:
    """One component that came back as it should.

    Attributes:
        name: The component.
        path: Its directory.
        steps: Steps that its checkpoint says it was trained for; ``None`` if it does not.
        drift: Its drift from the base; ``None`` without one.
        bends: Whether it has drifted so far that proxies begin to fall behind.
    """

    name: str
    path: Path
    steps: int | None
    drift: float | None
    bends: bool


def check_returned(
    config: StudyConfig, *, report: Callable[[str], None] | None = None
) -> list[Returned]:
    """Check that components are what was planned.

    They must be there, fit together and to the base, be trained for the planned steps and tokens
    where their checkpoints say for how many, hold no NaN or infinity, and have moved from the
    base, though not so far that no proxy was ever compared. Weights are read chunk by chunk.

    Args:
        config: The study.
        report: Where progress is shown.

    Returns:
        The components in their order, those on a hub left out.

    Raises:
        ComponentError: Naming the first component that is wrong.
        DemixError: If torch or another package is missing.
    """
    from optuna_demix.merging import ComponentSet

    paths = {n: config.component_path(n) for n, c in config.components.items() if c.hub is None}
    for name, path in paths.items():
        if not path.exists():
            raise ComponentError(
                f"{config.source}: components.{name}: no directory {path}; train it, or correct "
                "'path'"
            )
    if not paths:
        return []
    steps = {name: _steps(config, name, path) for name, path in paths.items()}
    base = config.base_path if (config.base_path / "config.json").is_file() else None
    chosen = config.merging.config_of
    components = ComponentSet.open(
        paths,
        base=base,
        config_of=chosen if chosen in paths else None,
        trust_remote_code=config.scoring.trust_remote_code,
    )
    drifts = _read(config, components, Report.of(report))
    return [
        Returned(
            name,
            path,
            steps[name],
            drifts.get(name),
            bends=_bends(drifts.get(name)),
        )
        for name, path in paths.items()
    ]


def _steps(config: StudyConfig, name: str, path: Path) -> int | None:
    """Steps that a checkpoint says it was trained for, if they are those that were planned."""
    record, state = read_json(path / RECORD_FILE) or {}, read_json(path / STATE_FILE) or {}
    found = {
        RECORD_FILE: (record.get("steps"), record.get("tokens")),
        STATE_FILE: (state.get("global_step"), None),
    }
    known = None
    for file, (steps, tokens) in found.items():
        for got, what in ((steps, "steps"), (tokens, "tokens")):
            planned = _planned(config, what)
            if isinstance(got, int) and planned is not None and got != planned:
                raise ComponentError(
                    f"{path / file}: component {name!r} was trained for {got:,} {what}, planned "
                    f"are {planned:,}; train it to the end, or correct training.component.tokens"
                )
        if isinstance(steps, int):
            known = steps
    return known


def _planned(config: StudyConfig, what: str) -> int | None:
    training = config.training
    if training is None:
        return None
    step_tokens = training.sequence_length * training.batch_size
    steps = round(training.component.tokens / step_tokens)
    return steps if what == "steps" else steps * step_tokens


def _read(config: StudyConfig, components: ComponentSet, report: Report) -> dict[str, float]:
    """Read all weights; the drift of each component where there is a base."""
    from optuna_demix.merging.checkpoints.drift import DRIFT_MEASURED, check_finite, drift

    with report.step("reading the components", unit="weight") as step:
        if components.base is None:
            check_finite(components, progress=step.update)
            return {}
        drifts = drift(components, progress=step.update)
    by_drift: dict[float, str] = {}
    for name, value in drifts.items():
        path = components.paths[name]
        if value == 0.0:
            raise ComponentError(
                f"{path}: component {name!r} has the weights of the base; it was not trained, or "
                "another folder is meant"
            )
        if value > DRIFT_MEASURED or not math.isfinite(value):
            raise ComponentError(
                f"{path}: component {name!r} has drifted {value:.3f} from the base "
                f"{config.base_path}: proxies were compared with trained models up to "
                f"{DRIFT_MEASURED} only; is it trained from this base, and for how long?"
            )
        other = by_drift.setdefault(value, name)
        if other != name:  # to the last bit: not by chance
            raise ComponentError(
                f"{path}: component {name!r} has the weights of {other!r}; correct one of the "
                "paths"
            )
    return drifts


def _bends(drift: float | None) -> bool:
    from optuna_demix.merging.checkpoints.drift import DRIFT_BENDS

    return drift is not None and drift >= DRIFT_BENDS


def study_lines(config: StudyConfig) -> str:
    """The lines of ``study.yaml`` that name base and components, paths as short as they get."""
    entries: dict[str, Any] = {}
    for name, component in config.components.items():
        entry = component.model_dump(exclude_unset=True)
        if component.hub is None:
            entry["path"] = _short(config, config.component_path(name))
        entries[name] = entry
    content: dict[str, Any] = {"components": entries}
    if (config.base_path / "config.json").is_file():
        content = {"base": _short(config, config.base_path), **content}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _short(config: StudyConfig, path: Path) -> str:
    relative = os.path.relpath(path, config.source.parent)
    return str(path) if relative.startswith(os.pardir) else relative
