"""Attach to an Optuna study: connect, check that it fits the ``study.yaml``, mark it as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna_demix._storage import connect, mask_url, storage_url
from optuna_demix.errors import StudyError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.sampler import DemixSampler
    from optuna_demix.terminator import DemixTerminator

__all__ = [
    "FINGERPRINT_ATTR",
    "check_directions",
    "claim",
    "composite_of",
    "connect",
    "create_command",
    "differences",
    "load_study",
    "mask_url",
    "objective_names",
    "sampler_of",
    "storage_url",
    "terminator_of",
    "warm_start_of",
]

FINGERPRINT_ATTR = "demix:fingerprint"
"""User attribute of a study: what it searches and scores, written by its first worker."""


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
    from optuna_demix.sampler import PAPER_SIZES, DemixSampler

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
        schedule_sizes=options.schedule_sizes or PAPER_SIZES,
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
    from optuna_demix.terminator import DemixTerminator

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


def objective_names(config: StudyConfig) -> list[str]:
    """Names of the study's objectives: what ``optuna-dashboard`` shows on its axes."""
    return list(config.capabilities) if config.objective == "capabilities" else ["composite"]


def create_command(config: StudyConfig, *, storage: str, study_name: str) -> str:
    """The ``optuna create-study`` command that fits a study."""
    directions = " ".join(["maximize"] * len(objective_names(config)))
    return (
        f"optuna create-study --storage {mask_url(storage)} --study-name {study_name} "
        f"--directions {directions}"
    )


def pruner_of(config: StudyConfig) -> BasePruner:
    """The pruner that a study asks for; without racing, one that never prunes."""
    from optuna.pruners import MedianPruner, NopPruner, WilcoxonPruner

    racing = config.scoring.racing
    if racing is None:
        return NopPruner()
    if racing.pruner == "median":
        return MedianPruner()
    return WilcoxonPruner(p_threshold=racing.p_threshold)


def load_study(
    storage: BaseStorage,
    *,
    study_name: str,
    sampler: BaseSampler | None,
    pruner: BasePruner | None = None,
) -> Study:
    """Load a study from a storage.

    Raises:
        StudyError: If there is no such study; the message lists those there are.
    """
    import optuna

    try:
        return optuna.load_study(
            study_name=study_name, storage=storage, sampler=sampler, pruner=pruner
        )
    except KeyError:
        names = sorted(study.study_name for study in storage.get_all_studies())
        known = f"it holds {', '.join(map(repr, names[:10]))}" if names else "it holds none"
        raise StudyError(
            f"no study {study_name!r} in the storage ({known}); "
            "make it with 'optuna create-study' or correct --study-name"
        ) from None


def check_directions(study: Study, config: StudyConfig) -> None:
    """Check that a study has the objectives that the ``study.yaml`` asks for.

    Raises:
        StudyError: If number or sense of the directions differ.
    """
    from optuna.study import StudyDirection

    wanted = objective_names(config)
    given = study.directions
    if len(given) == len(wanted) and all(d == StudyDirection.MAXIMIZE for d in given):
        return
    kind = ", ".join(d.name.lower() for d in given)
    raise StudyError(
        f"study {study.study_name!r} has {_count(len(given), 'direction')} ({kind}), but "
        f"{config.source} has {_count(len(wanted), 'objective')} to maximize "
        f"({', '.join(wanted)}); create the study with --directions "
        f"{' '.join(['maximize'] * len(wanted))}, or change 'objective' in the file"
    )


def differences(study: Study, fingerprint: Mapping[str, Any]) -> list[str]:
    """What differs between a study's fingerprint and another one, one line each."""
    stored = study.user_attrs.get(FINGERPRINT_ATTR)
    if stored is None:
        return []
    theirs, ours = _flatten(stored), _flatten(fingerprint)
    return [
        f"{key} (study: {theirs.get(key, 'absent')}, here: {ours.get(key, 'absent')})"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]


def claim(
    study: Study,
    config: StudyConfig,
    fingerprint: Mapping[str, Any],
    layout: list[dict[str, float]],
) -> None:
    """Mark a study with what it searches, or check that it is marked so.

    Metric names and the fingerprint are written once, by the first worker.

    Raises:
        StudyError: If the study was made for other components, tasks or constraints.
    """
    from optuna_demix._history import OBJECTIVES_ATTR

    if FINGERPRINT_ATTR not in study.user_attrs:
        study.set_metric_names(objective_names(config))
        study.set_user_attr(OBJECTIVES_ATTR, layout)
        study.set_user_attr(FINGERPRINT_ATTR, dict(fingerprint))
    # Read again: of two first workers at the same moment, one must find the other's mark.
    changed = differences(study, fingerprint)
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise StudyError(
            f"study {study.study_name!r} was made for something else: "
            f"{'; '.join(changed[:4])}{more}; use another study or undo the change"
        )


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, item in value.items():
            flat.update(_flatten(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    text = repr(value)
    return {prefix: text if len(text) <= 48 else text[:45] + "..."}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
