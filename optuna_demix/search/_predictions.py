"""What was expected of a trial, as attributes that tools can sort by.

Optuna's dashboard shows scalar user attributes of trials as columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.attributes import PREDICTED_PREFIX, PREDICTED_STD_PREFIX

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.proposals.fit import Fit
    from optuna_demix.search.rows.targets import Targets


def prediction_attrs(
    fit: Fit, params: Mapping[str, Any], objectives: Sequence[str]
) -> dict[str, float]:
    """Attributes that tell what a fit expects of a trial, by name.

    The standard deviation is that of the score to come: the surrogate's own doubt and the noise
    of one trial.

    Args:
        fit: The fit that the trial was proposed from.
        params: The trial's parameters.
        objectives: Names of the objectives, m of them.

    Returns:
        Two attributes for each objective, in the study's orientation; none if the parameters are
        not all there.
    """
    row = fit.joint.encode_params(params)
    if row is None:
        return {}
    predicted = fit.predict(row[None])
    mean = predicted.mean[0] * fit.targets.signs
    std = np.hypot(predicted.std[0], fit.noise)
    attrs = {}
    for j, name in enumerate(objectives):
        attrs[PREDICTED_PREFIX + name] = float(mean[j])
        attrs[PREDICTED_STD_PREFIX + name] = float(std[j])
    return attrs


def composite_of(study: Study, fit: Fit | None, values: Any) -> float | None:
    """The composite of a trial's values, as the study's sampler makes it.

    Ranks are those among random mixtures as the fit predicts them: later fits know better.

    Args:
        study: The study, with its sampler.
        fit: The fit that the trial was proposed from; ``None`` if there was none.
        values: The trial's values.

    Returns:
        The composite; ``None`` where the study has one objective, where a value is not finite, or
        where there is nothing to rank among.
    """
    from optuna_demix.search.own_sampler import options_of
    from optuna_demix.search.proposals.acquisition import Composite
    from optuna_demix.search.rows.targets import Targets

    signs = Targets.of(study).signs
    if len(signs) < 2:
        return None
    scores = np.asarray(values, dtype=float) * signs
    how = options_of(study).scalar_composite
    reference = fit.reference if fit is not None else np.empty((0, len(signs)))
    if not np.isfinite(scores).all() or (how == "rank" and len(reference) == 0):
        return None
    return float(Composite(how, reference).told(scores)[0])


def read_predictions(
    trials: Sequence[FrozenTrial], objectives: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Predictions (n, m) of trials and their standard deviations (n, m), NaN where unknown."""
    mean = [[_number(t, PREDICTED_PREFIX + name) for name in objectives] for t in trials]
    std = [[_number(t, PREDICTED_STD_PREFIX + name) for name in objectives] for t in trials]
    shape = (len(trials), len(objectives))
    return np.array(mean, dtype=float).reshape(shape), np.array(std, dtype=float).reshape(shape)


def read_proxy(trials: Sequence[FrozenTrial], targets: Targets, prefix: str) -> FloatArray:
    """Objectives (n, m) of trials as one of two proxies scores their weights.

    NaN where one of an objective's benchmarks has no such score.

    Args:
        trials: The trials, n of them.
        targets: How m objectives follow from benchmarks.
        prefix: Of the attributes that hold the proxy's scores.
    """
    names = targets.benchmarks
    scores = np.array(
        [[_number(trial, prefix + name) for name in names] for trial in trials],
        dtype=float,
    ).reshape(len(trials), len(names))
    if not names:  # objectives of unknown benchmarks
        return np.full((len(trials), len(targets.signs)), np.nan)
    columns = [scores[:, part != 0] @ part[part != 0] for part in targets.mixing.T]
    return np.stack(columns, axis=1)


def violation(space: MixtureSpace, params: Mapping[str, Any]) -> float | None:
    """By how much parameters miss the constraints, as a share of all data; 0 inside.

    It is the total variation between the parameters as they stand and the nearest allowed
    mixture. ``DemixSampler`` proposes nothing outside; parameters of other samplers need not
    even sum to 1, and then the mixture that was scored is another one, see
    :meth:`~optuna_demix.mixture.MixtureSpace.suggest`.

    Returns:
        The violation, or ``None`` if a parameter of the mixture is missing.
    """
    if any(name not in params for name in space.param_names):
        return None
    weights = np.array([float(params[name]) for name in space.param_names])
    if space.contains(weights):
        return 0.0
    return float(0.5 * np.abs(weights - space.project(weights)).sum())


def _number(trial: FrozenTrial, key: str) -> float:
    value = trial.user_attrs.get(key)
    return float(value) if isinstance(value, (int, float)) else float("nan")
