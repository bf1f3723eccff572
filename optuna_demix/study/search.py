"""The study file's sampler, pruner, terminator and recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna_demix.study.attach import load_study

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.sampler import DemixSampler
    from optuna_demix.search.terminator import DemixTerminator


def sampler_of(
    config: StudyConfig,
    space: MixtureSpace,
    *,
    seed: int | None = None,
    warm_start: Sequence[Study] = (),
) -> DemixSampler:
    """The sampler that a study asks for.

    Args:
        config: The study.
        space: Its mixture.
        seed: Instead of the study's own seed.
        warm_start: Earlier studies, see :func:`warm_start_of`.
    """
    from optuna_demix.search.proposals.demix import SIZES
    from optuna_demix.search.sampler import DemixSampler

    options = config.sampler
    return DemixSampler(
        space,
        seed=options.seed if seed is None else seed,
        n_startup_trials=options.n_startup_trials,
        surrogate=options.surrogate,
        schedule=options.schedule,
        composite=composite_of(config),
        exploration=options.exploration,
        kl=options.kl,
        reevaluate=options.reevaluate,
        warm_start=warm_start,
        schedule_sizes=options.schedule_sizes or SIZES,
    )


def warm_start_of(config: StudyConfig, storage: BaseStorage) -> list[Study]:
    """The earlier studies that the search learns from.

    Raises:
        StudyError: If the database does not hold one of them.
    """
    names = config.sampler.warm_start
    return [load_study(storage, study_name=name, sampler=None) for name in names]


def terminator_of(config: StudyConfig, space: MixtureSpace) -> DemixTerminator:
    """What stops a study that has converged."""
    from optuna_demix.search.terminator import DemixTerminator

    return DemixTerminator(
        space,
        surrogate=config.sampler.surrogate or "auto",
        composite=composite_of(config),
        kl=config.sampler.kl,
        seed=config.sampler.seed or 0,
    )


def composite_of(config: StudyConfig) -> str | list[float]:
    """How the objectives of a study make one merit, as sampler and recommendation take it."""
    if config.objective == "composite":
        return "rank"  # one objective: every composite ranks it alike
    given = config.sampler.composite
    return list(config.capability_weights.values()) if isinstance(given, dict) else given


def recommend_options(config: StudyConfig, storage: BaseStorage) -> dict[str, Any]:
    """What a study says to ``recommend``, as its keyword arguments.

    Raises:
        StudyError: If the database does not hold an earlier study to learn from.
    """
    options = config.sampler
    return {
        "surrogate": options.surrogate,
        "composite": composite_of(config),
        "schedule": options.schedule,
        "kl": options.kl,
        "warm_start": warm_start_of(config, storage),
        "seed": options.seed or 0,
    }


def pruner_of(config: StudyConfig) -> BasePruner:
    """The pruner that a study asks for; without racing, one that never prunes."""
    from optuna.pruners import MedianPruner, NopPruner, WilcoxonPruner

    racing = config.scoring.racing
    if racing is None:
        return NopPruner()
    if racing.pruner == "median":
        return MedianPruner()
    return WilcoxonPruner(p_threshold=racing.p_threshold)
