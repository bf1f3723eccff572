"""The study file's search: options, sampler, pruner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.study.attach import load_study

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.sampler import DemixSampler
    from optuna_demix.study.probabilities import ProbabilityProxy


def options_from(
    config: StudyConfig,
    storage: BaseStorage | None = None,
    *,
    prior_mean: ProbabilityProxy | None = None,
) -> SearchOptions:
    """What a study file says to its sampler, ``recommend``, the terminator and the report.

    Args:
        config: The study.
        storage: Where the earlier studies are that it learns from; ``None`` leaves them out.
        prior_mean: What is known of the scores beforehand.

    Raises:
        StudyError: If the storage does not hold one of them.
    """
    from optuna_demix.search.options import SearchOptions

    given = config.sampler
    return SearchOptions(
        surrogate=given.surrogate,
        composite=_composite_of(config),
        schedule=given.schedule,
        kl=given.kl,
        seed=given.seed,
        prior_mean=prior_mean,
        warm_start=() if storage is None else _earlier(config, storage),
        warm_map=given.warm_map,
    )


def options_of(config: StudyConfig, space: MixtureSpace, study: Study) -> SearchOptions:
    """The options to read a study with: those of its workers, as far as this host has the files.

    Raises:
        StudyError: If the storage does not hold an earlier study that it learns from.
    """
    from optuna_demix.study.proxies import kept_prior_mean

    return options_from(config, study._storage, prior_mean=kept_prior_mean(config, space, study))


def sampler_of(
    config: StudyConfig,
    space: MixtureSpace,
    options: SearchOptions | None = None,
    *,
    seed: int | None = None,
) -> DemixSampler:
    """The sampler that a study asks for.

    Args:
        config: The study.
        space: Its mixture.
        options: From :func:`options_from`; default: the study's, without earlier studies.
        seed: Instead of the study's own seed.
    """
    from optuna_demix.search.proposals.demix import SIZES
    from optuna_demix.search.sampler import DemixSampler

    options = options or options_from(config)
    given = config.sampler
    return DemixSampler(
        space,
        seed=options.seed if seed is None else seed,
        n_startup_trials=given.n_startup_trials,
        surrogate=options.surrogate,
        schedule=options.schedule,
        composite=options.composite,
        exploration=given.exploration,
        kl=options.kl,
        reevaluate=given.reevaluate,
        warm_start=options.warm_start,
        warm_map=options.warm_map,
        prior_mean=options.prior_mean,
        schedule_sizes=given.schedule_sizes or SIZES,
    )


def layout_of(config: StudyConfig) -> list[dict[str, float]]:
    """How the objectives of a study follow from its benchmarks."""
    from optuna_demix.config.study import capabilities_of
    from optuna_demix.search.rows.targets import objective_layout

    weights = config.capability_weights if config.objective == "composite" else None
    return objective_layout(capabilities_of(config), weights)


def pruner_of(config: StudyConfig) -> BasePruner:
    """The pruner that a study asks for; without racing, one that never prunes."""
    from optuna.pruners import MedianPruner, NopPruner, WilcoxonPruner

    racing = config.scoring.racing
    if racing is None:
        return NopPruner()
    if racing.pruner == "median":
        return MedianPruner()
    return WilcoxonPruner(p_threshold=racing.p_threshold)


def _earlier(config: StudyConfig, storage: BaseStorage) -> list[Study]:
    """The earlier studies that the search learns from."""
    names = config.sampler.warm_start
    return [load_study(storage, study_name=name, sampler=None) for name in names]


def _composite_of(config: StudyConfig) -> str | list[float]:
    """How the objectives of a study make one merit."""
    if config.objective == "composite":
        return "rank"  # one objective: every composite ranks it alike
    given = config.sampler.composite
    return list(config.capability_weights.values()) if isinstance(given, dict) else given
