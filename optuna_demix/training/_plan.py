"""Lay out the models of a study, with their data shares and steps, in the order of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optuna_demix._wording import unknown_name
from optuna_demix.config import BudgetConfig, StudyConfig, TrainingConfig
from optuna_demix.config.space import space_of
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.training._checks import check_paths
from optuna_demix.training._job import Run
from optuna_demix.training._record import read_record
from optuna_demix.training._schedule import check_schedule

_SHARES_SUM = 1e-6  # how far data shares may miss the sum 1


@dataclass(frozen=True)
class TrainingPlan:
    """The models of a study.

    Attributes:
        runs: Those to train, in the order of training.
        given: Components that exist already, given by hub or path.
    """

    runs: list[Run]
    given: list[str]


def plan_models(
    config: StudyConfig,
    training: TrainingConfig,
    references: int,
    mixtures: Sequence[Mapping[str, float]] | None,
) -> TrainingPlan:
    """Lay out every model of the study in the order of training.

    Args:
        config: The study.
        training: Its section on training.
        references: Number of reference models at sampled mixtures.
        mixtures: Data shares of the references, instead.
    """
    runs: list[Run] = []
    given: list[str] = []
    for name, component in config.components.items():
        path = config.component_path(name)
        if component.hub is not None or (
            component.path is not None and path.exists() and read_record(path) is None
        ):
            given.append(name)
            continue
        field = f"components.{name}.composition"
        runs.append(
            _make_run(config, name, "training.component", path, config.composition_of(name), field)
        )
    if training.base is not None:
        field = "training.base.composition"
        shares = training.base.composition
        if shares is None:
            space = space_of(config)
            prior = space.data_shares(space.prior)  # (D,)
            shares = dict(zip(space.datasets, prior.tolist(), strict=True))
        base = _make_run(config, "base", "training.base", config.base_path, shares, field)
        runs.insert(0, base)
    runs += _reference_runs(config, references, mixtures)
    check_paths(config, runs, given)
    return TrainingPlan(runs, given)


def _reference_runs(
    config: StudyConfig, count: int, mixtures: Sequence[Mapping[str, float]] | None
) -> list[Run]:
    assert config.training is not None
    if count < 0:
        raise InputError(f"references: must not be negative, got {count}")
    if count and mixtures is not None:
        raise InputError("give either a number of references or their mixtures, not both")
    section = "training.component" if config.training.reference is None else "training.reference"
    folder = config.run_path / "models" / "references"
    if mixtures is not None:
        return [
            _make_run(
                config, f"references/{i}", section, folder / str(i), shares, f"reference {i}"
            )
            for i, shares in enumerate(mixtures)
        ]
    if not count:
        return []
    space = space_of(config)
    runs = []
    for i in range(count):
        # One generator each: more references later leave the first ones as they are.
        w = space.sample(1, np.random.default_rng([config.training.seed, i]))[0]  # (K,)
        data = w @ space.composition  # of the searched phase, where the run has phases
        shares = dict(zip(space.datasets, data.tolist(), strict=True))
        run = _make_run(
            config, f"references/{i}", section, folder / str(i), shares, f"reference {i}"
        )
        weights = dict(zip(space.components, w.tolist(), strict=True))
        runs.append(dataclasses.replace(run, merge_weights=weights))
    return runs


def _make_run(
    config: StudyConfig,
    name: str,
    section: str,
    path: Path,
    shares: Mapping[str, float],
    field: str,
) -> Run:
    assert config.training is not None
    budget: BudgetConfig = getattr(config.training, section.removeprefix("training."))
    step_tokens = config.training.sequence_length * config.training.batch_size
    steps = round(budget.tokens / step_tokens)
    if steps < 1:
        raise ConfigError(
            f"{config.source}: {section}.tokens: {budget.tokens:,} tokens are less than one step "
            f"of sequence_length * batch_size = {step_tokens:,}; give more"
        )
    run = Run(name, section, path, budget, _checked_shares(config, shares, field), steps)
    check_schedule(config, run)
    return run


def _checked_shares(
    config: StudyConfig, shares: Mapping[str, float], field: str
) -> dict[str, float]:
    """Positive shares in the order of the study, normalized from a sum that is nearly 1."""
    for name, share in shares.items():
        if name not in config.dataset_names:
            raise ConfigError(
                f"{config.source}: {field}: {unknown_name(name, config.dataset_names, 'dataset')}"
            )
        if not (math.isfinite(share) and share >= 0.0):
            raise ConfigError(
                f"{config.source}: {field}: the share of {name!r} must be a number from 0 to 1, "
                f"got {share}"
            )
    total = math.fsum(shares.values())
    if abs(total - 1.0) > _SHARES_SUM:
        raise ConfigError(
            f"{config.source}: {field}: the data shares must sum to 1, not to {total:.6g}"
        )
    ordered = {name: float(shares.get(name, 0.0)) / total for name in config.dataset_names}
    # Rounded, so that a recipe does not depend on the last bit of somebody's arithmetic.
    return {name: round(share, 12) for name, share in ordered.items() if share >= 1e-12}


def selected_runs(
    config: StudyConfig, plan: TrainingPlan, only: Sequence[str] | None, retrain: Sequence[str]
) -> list[Run]:
    """The runs of a plan that were asked for, by name."""
    known = [run.name for run in plan.runs]
    groups = ["references"] if any(name.startswith("references/") for name in known) else []
    for name in only or ():
        if name in plan.given:
            raise ConfigError(
                f"{config.source}: components.{name}: is given by hub or path; nothing to train"
            )
        if name == "base" and name not in known:
            raise ConfigError(
                f"{config.source}: training.base: is missing; give it and training.model to "
                "train a base"
            )
        if name not in known + groups:
            raise ConfigError(f"{config.source}: {unknown_name(name, known + groups, 'model')}")
    chosen = [
        run
        for run in plan.runs
        if only is None or run.name in only or run.name.split("/")[0] in set(groups) & set(only)
    ]
    for name in retrain:
        if name not in [run.name for run in chosen]:
            hint = unknown_name(name, [run.name for run in chosen], "model to train")
            raise ConfigError(f"{config.source}: retrain: {hint}")
    return chosen
