"""The sampler, and what optuna-dashboard shows of the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from optuna_demix.config._base import StrictModel


class SamplerConfig(StrictModel):
    """Options of :class:`~optuna_demix.DemixSampler`.

    Attributes:
        warm_start: Names of earlier studies in the same database to learn from as well.
    """

    surrogate: Literal["auto", "lightgbm", "lightgbm-linear", "gp"] | None = None
    schedule: Literal["continuous", "demix"] = "continuous"
    schedule_sizes: tuple[PositiveInt, ...] | None = None
    n_startup_trials: Annotated[int, Field(ge=0)] = 8
    composite: Literal["rank", "mean", "pareto"] | dict[str, float] = "rank"
    exploration: Annotated[float, Field(ge=0.0)] = 1.0
    kl: Annotated[float, Field(ge=0.0)] = 0.0
    reevaluate: bool = False
    warm_start: list[str] = Field(default_factory=list)
    seed: int | None = None


class DashboardConfig(StrictModel):
    """What workers show in ``optuna-dashboard``, where that is installed.

    Attributes:
        push: Whether they write plots and the note.
        interval: Least seconds between two updates.
        growth: Least growth of the number of finished trials between them.
    """

    push: bool = True
    interval: PositiveFloat = 300.0
    growth: Annotated[float, Field(ge=0.0)] = 0.1
