"""Refuses settings, devices and paths that cannot be trained with, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optuna_demix.config import StudyConfig, TrainingConfig
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.training._job import Run
from optuna_demix.training._processes import process_count


def settings_of(config: StudyConfig) -> TrainingConfig:
    """A study's section on training."""
    if config.training is None:
        raise ConfigError(f"{config.source}: training: is missing; add it to train models")
    return config.training


def check_settings(config: StudyConfig, training: TrainingConfig) -> None:
    """Refuse fields of a study's training that do not go together."""
    source = config.source
    if training.base is not None and training.model is None:
        raise ConfigError(
            f"{source}: training.model: is missing; training.base trains a new model from it"
        )
    if training.sharding != "none" and process_count() == 1:
        raise ConfigError(
            f"{source}: training.sharding: {training.sharding} needs several processes; launch "
            "with torchrun --nproc-per-node N, or set none"
        )
    for section in ("component", "reference"):
        budget = getattr(training, section)
        if budget is not None and budget.composition is not None:
            raise ConfigError(
                f"{source}: training.{section}.composition: only the base takes one here; "
                "give components.<name>.composition"
            )


def check_device(device: str, *, cuda: bool) -> None:
    """Refuse a device that is unknown or not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"device {device!r} is unknown; give auto, cpu or cuda "
            "(CUDA_VISIBLE_DEVICES chooses the GPU)"
        )
    if device == "cuda" and not cuda:
        raise InputError("device cuda: torch sees no GPU here; give --device cpu or auto")


def check_paths(config: StudyConfig, runs: Sequence[Run], given: Sequence[str]) -> None:
    """Refuse models whose paths are the same or lie inside each other.

    A trained model replaces its folder as a whole, with everything that lies inside.

    Args:
        config: The study.
        runs: The models to train.
        given: Components that exist already.
    """
    models = config.run_path / "models"
    reserved = (models / ".partial", models / "references")
    own = [run for run in runs if run.is_base or run.name in config.components]
    owners: dict[Path, str] = {config.component_path(name): name for name in given}
    if not any(run.is_base for run in runs):
        owners[config.base_path] = "base"
    for run in runs:
        other = owners.setdefault(run.path, run.name)
        if other != run.name or (run.name == "base" and not run.is_base):
            raise ConfigError(
                f"{_field(config, run.name)}: the name or path is taken ({run.path}); "
                "choose another"
            )
    for run in own:
        for folder in reserved:
            if run.path.is_relative_to(folder):
                raise ConfigError(
                    f"{_field(config, run.name)}: {run.path} lies inside {folder}, which is kept "
                    "for other models; choose another path"
                )
    written = {run.path for run in runs}
    for path, name in owners.items():
        for outer in path.parents:
            if outer in owners and (outer in written or path in written):
                raise ConfigError(
                    f"{_field(config, name)}: {path} lies inside the path of {owners[outer]!r}; "
                    "choose another"
                )


def _field(config: StudyConfig, name: str) -> str:
    """Where the study gives the path of a model."""
    if name == "base":
        return f"{config.source}: base"
    is_component = name in config.components
    return f"{config.source}: " + (f"components.{name}" if is_component else name)
