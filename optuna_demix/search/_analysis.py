"""What the finished trials of a study say about every mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.errors import StudyError
from optuna_demix.search._result import Mixture, Recommendation

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.proposals.fit import Fit
    from optuna_demix.search.rows.history import Arrays
    from optuna_demix.surrogate._validation import Validation

_POOL = 4096  # fresh candidates; as many again grow around the best trials
_GENERATIONS = 4  # refinements of the best candidates
_AVERAGE = 32  # candidates whose mean is recommended: their errors cancel (paper, appendix B)
_RADIUS = 0.05  # total variation within which they lie
_MIN_TRIALS = 2


@dataclass(frozen=True)
class Analysis:
    """A recommendation and what it was made of.

    Attributes:
        recommendation: The recommendation.
        space: The mixture.
        objectives: Names of the objectives, m of them.
        fit: The surrogate, fitted to all rows, with its pool of candidates.
        validation: Its held-out accuracy.
        trials: The rows it was fitted to, those of earlier studies first.
        n_warm: Number of rows of earlier studies.
    """

    recommendation: Recommendation
    space: MixtureSpace
    objectives: tuple[str, ...]
    fit: Fit
    validation: Validation
    trials: Arrays
    n_warm: int


def analyse(
    study: Study,
    space: MixtureSpace,
    *,
    surrogate: str | None = None,
    composite: str | Sequence[float] = "rank",
    schedule: str = "continuous",
    kl: float = 0.0,
    warm_start: Sequence[Study] = (),
    seed: int = 0,
) -> Analysis:
    """As :func:`recommend`, with all that the recommendation was made of."""
    from optuna_demix.search.proposals.acquisition import Composite
    from optuna_demix.search.proposals.convergence import converge
    from optuna_demix.search.proposals.demix import AVERAGE, POOL, best_of_pool
    from optuna_demix.search.proposals.fit import Fit, observed_merit
    from optuna_demix.search.rows.history import History
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.search.rows.targets import Targets
    from optuna_demix.search.rows.warm_start import warm_rows
    from optuna_demix.surrogate._data import finite_scores

    if composite == "pareto":
        composite = "rank"  # a single mixture is asked for
    joint = JointSpace([space], {})
    targets = Targets.of(study)
    warm = [
        row
        for earlier in warm_start
        for row in warm_rows(earlier, joint, targets, own=earlier is study)[0]
    ]
    history = History(joint, targets, warm)
    history.update(study.get_trials(deepcopy=False))
    n_own = len(history) - history.n_warm
    if n_own < _MIN_TRIALS:
        raise StudyError(
            f"study {study.study_name!r} has {n_own} finished trials of this mixture "
            f"({', '.join(space.components)}); run at least {_MIN_TRIALS}"
        )
    if not history.arrays().complete[history.n_warm :].any():
        raise StudyError(
            f"study {study.study_name!r}: all {n_own} finished trials of this mixture were "
            "pruned; choose a pruner that lets some complete"
        )
    kind = surrogate or ("lightgbm" if schedule == "demix" else "auto")
    fit = Fit(kind, joint, targets, history.arrays(), seed)
    trials = fit.trials
    fit.grow_pool(composite, size=_POOL, generations=_GENERATIONS, optimism=0.0)
    # Ranks among random mixtures, as in the paper: those among the trials would depend on where
    # the search has crowded.
    merit = Composite(composite, fit.reference)
    outlook = converge(fit, merit, kl=kl)
    if schedule == "demix":
        final = best_of_pool(fit, composite, POOL, AVERAGE).mean(axis=0)
    else:
        final = fit.best_mean(outlook.merit, _AVERAGE, radius=_RADIUS)
    observed = observed_merit(merit(finite_scores(trials.V)), trials)
    best_index = history.n_warm + int(np.argmax(observed[history.n_warm :]))
    rows = {
        "prior": np.asarray(space.prior),
        "uniform": space.project(np.full(len(space.components), 1.0 / len(space.components))),
        "best_trial": trials.X[best_index],
        "recommended": space.project(final),
    }
    stacked = np.stack(list(rows.values()))
    predicted = fit.predict(stacked)
    mean, std = predicted.mean, predicted.std
    names = objective_names_of(study)
    mixtures = {
        name: _mixture(
            space, rows[name], names, mean[i] * targets.signs, std[i], float(merit(mean[[i]])[0])
        )
        for i, name in enumerate(rows)
    }
    validation = fit.surrogate.validate()
    recommendation = Recommendation(
        study_name=study.study_name,
        mixtures=mixtures,
        best_trial=int(trials.numbers[best_index]),
        n_trials=len(history),
        expected_gain=outlook.expected_gain,
        noise=outlook.noise,
        accuracy=dict(zip(targets.benchmarks or names, validation.spearman.tolist(), strict=True)),
        composite=composite if isinstance(composite, str) else "weighted mean",
        merit=merit,
    )
    return Analysis(recommendation, space, tuple(names), fit, validation, trials, history.n_warm)


def _mixture(
    space: MixtureSpace,
    weights: FloatArray,
    names: Sequence[str],
    mean: FloatArray,
    std: FloatArray,
    composite: float,
) -> Mixture:
    shares = space.data_shares(weights)
    return Mixture(
        merge_weights=dict(zip(space.components, weights.tolist(), strict=True)),
        data_shares=dict(zip(space.datasets, shares.tolist(), strict=True)),
        capabilities=dict(zip(names, mean.tolist(), strict=True)),
        std=dict(zip(names, std.tolist(), strict=True)),
        composite=composite,
        measured=False,
    )


def objective_names_of(study: Study) -> list[str]:
    """Names of a study's objectives: its metric names, else ``value`` or ``value 0`` and so on."""
    names = study.metric_names
    if names is not None:
        return list(names)
    n = len(study.directions)
    return ["value"] if n == 1 else [f"value {i}" for i in range(n)]
