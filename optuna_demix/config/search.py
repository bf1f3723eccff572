"""The sampler, and what optuna-dashboard shows of the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optuna_demix.config._base import (
    Count,
    NonNegativeNumber,
    PositiveCount,
    PositiveNumber,
    Seed,
    Share,
    StrictModel,
)


class SamplerConfig(StrictModel):
    """Options of :class:`~optuna_demix.DemixSampler`, which explains them."""

    surrogate: Literal["auto", "gp", "lightgbm-linear", "lightgbm"] | None = None
    """Model of the scores: ``auto``, ``gp``, ``lightgbm-linear`` or ``lightgbm``."""
    schedule: Literal["continuous", "demix"] = "continuous"
    """``continuous``, or ``demix`` for the published iterations."""
    schedule_sizes: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] | None = None
    """Trials of each iteration of ``schedule: demix``."""
    n_startup_trials: Count = 8
    """Trials drawn at random first."""
    composite: Literal["rank", "mean", "pareto"] | dict[str, NonNegativeNumber] = "rank"
    """Merit of several objectives: ``rank``, ``mean``, ``pareto``, or a weight for each
    capability."""
    exploration: NonNegativeNumber = 1.0
    """Weight of what is not known yet against what looks good."""
    kl: NonNegativeNumber = 0.0
    """Merit given up for each nat of divergence from the prior."""
    reevaluate: bool = False
    """Whether the best trial may be evaluated again where scores are noisy."""
    warm_start: list[str] = Field(default_factory=list)
    """Names of earlier studies in the same database to learn from as well."""
    warm_map: dict[str, dict[str, Share]] | None = None
    """What components of earlier studies became, ``{old: {new: share}}``: renamed, split or
    merged; ``{}`` for one that was removed."""
    seed: Seed | None = None
    """Seed of everything that is random; default: a random one."""


class DashboardConfig(StrictModel):
    """What workers show in ``optuna-dashboard``, where that is installed."""

    push: bool = True
    """Whether they write plots and the note."""
    interval: PositiveNumber = 300.0
    """Least seconds between two updates."""
    growth: NonNegativeNumber = 0.1
    """Least growth of the number of finished trials between them."""
