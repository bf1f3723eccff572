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
    """Options of :class:`~optuna_demix.DemixSampler`, which explains them.

    Attributes:
        surrogate: Model of the scores: ``auto``, ``gp``, ``lightgbm-linear`` or ``lightgbm``.
        schedule: ``continuous``, or ``demix`` for the published iterations.
        schedule_sizes: Trials of each iteration of ``schedule: demix``.
        n_startup_trials: Trials drawn at random first.
        composite: Merit of several objectives: ``rank``, ``mean``, ``pareto``, or a weight for
            each capability.
        exploration: Weight of what is not known yet against what looks good.
        kl: Merit given up for each nat of divergence from the prior.
        reevaluate: Whether the best trial may be evaluated again where scores are noisy.
        warm_start: Names of earlier studies in the same database to learn from as well.
        warm_map: What components of earlier studies became, ``{old: {new: share}}``: renamed,
            split or merged; ``{}`` for one that was removed.
        seed: Seed of everything that is random; default: a random one.
    """

    surrogate: Literal["auto", "gp", "lightgbm-linear", "lightgbm"] | None = None
    schedule: Literal["continuous", "demix"] = "continuous"
    schedule_sizes: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] | None = None
    n_startup_trials: Count = 8
    composite: Literal["rank", "mean", "pareto"] | dict[str, NonNegativeNumber] = "rank"
    exploration: NonNegativeNumber = 1.0
    kl: NonNegativeNumber = 0.0
    reevaluate: bool = False
    warm_start: list[str] = Field(default_factory=list)
    warm_map: dict[str, dict[str, Share]] | None = None
    seed: Seed | None = None


class DashboardConfig(StrictModel):
    """What workers show in ``optuna-dashboard``, where that is installed.

    Attributes:
        push: Whether they write plots and the note.
        interval: Least seconds between two updates.
        growth: Least growth of the number of finished trials between them.
    """

    push: bool = True
    interval: PositiveNumber = 300.0
    growth: NonNegativeNumber = 0.1
