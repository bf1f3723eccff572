"""The final mixture of a study: what to train on, what it should score, how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search._analysis import analyse

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search._result import Recommendation


def recommend(
    study: Study,
    space: MixtureSpace,
    *,
    surrogate: str | None = None,
    composite: str | Sequence[float] = "rank",
    schedule: str = "continuous",
    kl: float = 0.0,
    warm_start: Sequence[Study] = (),
    seed: int = 0,
) -> Recommendation:
    """Find the mixture with the best predicted merit.

    The surrogate is fitted to all finished trials and ranks a large pool of candidates; the
    recommendation is the mean of the best ones around the very best, which lies inside the
    constraints as they do.
    With ``schedule="demix"`` the pool and the number averaged are those of the paper.

    Args:
        study: The study; trials of any sampler will do.
        space: Its mixture.
        surrogate: Kind of the surrogate; default ``"auto"``, for the paper ``"lightgbm"``.
        composite: Merit of several objectives: ``"rank"``, ``"mean"`` or weights.
        schedule: ``"continuous"`` or ``"demix"``.
        kl: Merit given up for each nat of divergence from the prior, as in ``DemixSampler``.
        warm_start: Earlier studies to learn from as well, as in ``DemixSampler``.
        seed: Seed of the pool and the surrogate.

    Returns:
        The recommendation, with predicted scores; see :func:`verify`.

    Raises:
        StudyError: If the study has fewer than two finished trials with this mixture.
    """
    return analyse(
        study,
        space,
        surrogate=surrogate,
        composite=composite,
        schedule=schedule,
        kl=kl,
        warm_start=warm_start,
        seed=seed,
    ).recommendation


def verify(
    recommendation: Recommendation,
    study: Study,
    score: Callable[[Mapping[str, float]], Sequence[float]],
    *,
    done: Callable[[], object] | None = None,
) -> Recommendation:
    """Measure every mixture of a recommendation instead of predicting it.

    Args:
        recommendation: What to measure.
        study: The study it came from.
        score: Objective values (m,) of merge weights by component.
        done: Called after each mixture.

    Returns:
        The same recommendation with measured scores and composites.
    """
    from optuna_demix.search.rows.targets import Targets

    signs = Targets.of(study).signs
    measured = {}
    for name, mixture in recommendation.mixtures.items():
        values = np.asarray(score(mixture.merge_weights), dtype=float)
        measured[name] = replace(
            mixture,
            capabilities=dict(zip(mixture.capabilities, values.tolist(), strict=True)),
            std={},
            composite=float(recommendation.merit(values[None] * signs)[0]),
            measured=True,
        )
        if done is not None:
            done()
    return replace(recommendation, mixtures=measured)
