"""The final mixture of a study: what to train on, what it should score, how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search._analysis import analyze

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search._result import Mixture, Recommendation
    from optuna_demix.search.options import SearchOptions


def recommend(
    study: Study,
    space: MixtureSpace | Sequence[MixtureSpace] | None = None,
    *,
    options: SearchOptions | None = None,
) -> Recommendation:
    """Find the mixture with the best predicted merit, and the other parameters to go with it.

    The surrogate is fitted to all finished trials, over the mixtures and every static parameter
    beside them, as in :class:`~optuna_demix.DemixSampler`. It ranks a large pool of candidates;
    the recommendation is the mean of the best ones around the very best, which lies inside the
    constraints as they do. A parameter that never varied keeps its value.
    With ``schedule="demix"`` the pool and the number averaged are the published ones (DeMix,
    appendix B).
    With the composite ``"pareto"`` and several objectives, the result has a front of trade-offs,
    and the recommendation is its member with the best mean percentile rank.

    Example:
        .. code-block:: python

            result = recommend(study)
            print(result)
            result.data_shares, result.params  # what to train with

    Args:
        study: The study; trials of any sampler will do.
        space: Its mixture, or all its mixtures; ``None`` for those of the study's own
            ``DemixSampler``.
        options: How to read the study; ``None`` for what its own ``DemixSampler`` says, and the
            defaults under another sampler.

    Returns:
        The recommendation, with predicted scores; see :func:`verify`.

    Raises:
        ConfigError: If an argument has the wrong type, or the mixture is neither given nor known
            to the sampler.
        StudyError: If the study has fewer than two finished trials with these mixtures, or
            mixtures beside them.
    """
    return analyze(study, space, options=options).recommendation


def verify(
    recommendation: Recommendation,
    study: Study,
    score: Callable[[Mixture], Sequence[float]],
    *,
    done: Callable[[], object] | None = None,
) -> Recommendation:
    """Measure the mixtures of a recommendation instead of predicting them.

    Those of a front stay predicted.

    Args:
        recommendation: What to measure.
        study: The study it came from.
        score: Objective values (m,) of a mixture, from its ``merge_weights`` and ``params``.
        done: Called after each mixture; one that has several names is measured once.

    Returns:
        The same recommendation with measured scores and composites.

    Raises:
        ConfigError: If ``score`` returns another number of values than the study has objectives.
    """
    from optuna_demix.errors import ConfigError
    from optuna_demix.search._result import distinct_mixtures
    from optuna_demix.search.rows.targets import Targets

    signs = Targets.of(study).signs
    measured = {}
    for names in distinct_mixtures(recommendation.mixtures):
        mixture = recommendation.mixtures[names[0]]
        values = np.asarray(score(mixture), dtype=float)
        if values.shape != signs.shape:
            raise ConfigError(
                f"score must return {len(signs)} values, one for each objective of study "
                f"{study.study_name!r}; got shape {values.shape}"
            )
        scored = replace(
            mixture,
            capabilities=dict(zip(mixture.capabilities, values.tolist(), strict=True)),
            std={},
            composite=float(recommendation.merit(values[None] * signs)[0]),
            measured=True,
        )
        measured.update(dict.fromkeys(names, scored))
        if done is not None:
            done()
    in_order = {name: measured[name] for name in recommendation.mixtures}
    return replace(recommendation, mixtures=in_order)
