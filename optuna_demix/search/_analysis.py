"""What the finished trials of a study say about every mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix._wording import counted
from optuna_demix.attributes import WEIGHTS_KEY
from optuna_demix.errors import StudyError
from optuna_demix.search._result import Mixture, Recommendation
from optuna_demix.search._weights import Weights
from optuna_demix.search.own_sampler import options_of, spaces_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.proposals.acquisition import Composite
    from optuna_demix.search.proposals.convergence import Outlook
    from optuna_demix.search.proposals.fit import Candidates, Fit
    from optuna_demix.search.rows.history import Arrays, History
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.surrogate._validation import Validation

_POOL = 4096  # fresh candidates; as many again grow around the best trials
_GENERATIONS = 4  # refinements of the best candidates
_AVERAGE = 32  # candidates whose mean is recommended: their errors cancel (paper, appendix B)
_RADIUS = 0.05  # total variation within which they lie
_MIN_TRIALS = 2
_FRONT = 20  # members of a front that are shown


@dataclass(frozen=True)
class Analysis:
    """A recommendation and what it was made of.

    Attributes:
        recommendation: The recommendation.
        spaces: The mixtures; their weights are the first columns of a row, in order.
        row: The recommended mixtures and other parameters (d,).
        objectives: Names of the objectives, m of them.
        merit: The composite of objective scores, as it ranked the candidates.
        fit: The surrogate, fitted to all rows, with its pool of candidates.
        validation: Its held-out accuracy.
        trials: The rows it was fitted to, those of earlier studies first.
        n_warm: Number of rows of earlier studies.
        seed: Seed of all of it.
    """

    recommendation: Recommendation
    spaces: tuple[MixtureSpace, ...]
    row: FloatArray
    objectives: tuple[str, ...]
    merit: Composite
    fit: Fit
    validation: Validation
    trials: Arrays
    n_warm: int
    seed: int


def analyze(
    study: Study,
    space: MixtureSpace | Sequence[MixtureSpace] | None = None,
    *,
    options: SearchOptions | None = None,
) -> Analysis:
    """As :func:`~optuna_demix.recommend`, with all that the recommendation was made of."""
    from optuna_demix.search.proposals.acquisition import Composite
    from optuna_demix.search.proposals.convergence import converge, least_trials
    from optuna_demix.search.proposals.fit import Fit, observed_merit
    from optuna_demix.search.proposals.front import Front
    from optuna_demix.search.proposals.state import StudyState
    from optuna_demix.surrogate._data import finite_scores

    spaces = spaces_of(study, space)
    options = options_of(study, options)
    options.check_spaces(spaces)
    own = study.get_trials(deepcopy=False)
    _refuse_other_mixtures(study, own, spaces)
    known, constants = StudyState(study, options).current(spaces)
    history = known.history
    _require_trials(study, history)
    joint, targets = history.joint, history.targets
    seed = options.seed or 0
    arrays = history.arrays()
    fit = Fit(options.kind, joint, targets, arrays, seed, prior_mean=known.prior)
    how = options.scalar_composite
    fit.grow_pool(how, size=_POOL, generations=_GENERATIONS, optimism=0.0)
    has_front = options.composite == "pareto" and len(study.directions) > 1
    front = Front(fit, kl=options.kl).members(_FRONT) if has_front else np.empty(0, dtype=np.intp)
    # Ranks among random mixtures, as in the paper: those among the trials would depend on where
    # the search has crowded.
    merit = Composite(how, fit.reference)
    outlook = converge(fit, merit, kl=options.kl)
    row = _exact(joint, fit.pool.X[front[0]]) if len(front) else _best_row(fit, outlook, options)
    trials = fit.trials
    observed = observed_merit(merit(finite_scores(trials.V)), trials)
    best_index = history.n_warm + int(np.argmax(observed[history.n_warm :]))
    best_trial = int(trials.numbers[best_index])
    rows = {
        "prior": _with_mixtures(joint, row, [space.prior for space in spaces]),
        "uniform": _with_mixtures(joint, row, [space.uniform for space in spaces]),
        "best_trial": trials.X[best_index],
        "recommended": row,
    }
    names = objective_names_of(study)
    describe = _Describer(fit, names, merit, constants)
    mixtures = dict(zip(rows, describe(np.stack(list(rows.values()))), strict=True))
    # As they stand in the trial: a row holds the logarithms of some.
    given = next(trial.params for trial in own if trial.number == best_trial)
    params = {name: given[name] for name in mixtures["best_trial"].params}
    mixtures["best_trial"] = replace(mixtures["best_trial"], params=params)
    validation = fit.surrogate.validate()
    recommendation = Recommendation(
        study_name=study.study_name,
        mixtures=mixtures,
        front=tuple(describe(_by_first_objective(fit.pool, front))),
        best_trial=best_trial,
        n_trials=len(history),
        n_warm=history.n_warm,
        least_trials=least_trials(joint.n_mixture + len(joint.others)),
        expected_gain=outlook.expected_gain,
        noise=outlook.noise,
        accuracy=dict(zip(targets.benchmarks or names, validation.spearman.tolist(), strict=True)),
        composite=how if isinstance(how, str) else "weighted mean",
        merit=merit,
        estimated=_estimated(arrays, targets.benchmarks),
    )
    return Analysis(
        recommendation=recommendation,
        spaces=spaces,
        row=row,
        objectives=tuple(names),
        merit=merit,
        fit=fit,
        validation=validation,
        trials=trials,
        n_warm=history.n_warm,
        seed=seed,
    )


def _estimated(trials: Arrays, benchmarks: Sequence[str]) -> dict[str, int]:
    """In how many trials the score of each benchmark is estimated, where in any."""
    missing = (np.isnan(trials.Y) & ~trials.complete[:, None]).sum(axis=0).tolist()
    return {name: n for name, n in zip(benchmarks, missing, strict=bool(benchmarks)) if n}


def _refuse_other_mixtures(
    study: Study, trials: Sequence[FrozenTrial], spaces: Sequence[MixtureSpace]
) -> None:
    """Refuse a study whose trials have a mixture that is not among those given.

    Its weights would count as parameters of their own, which need not sum to 1.
    """
    keys = {space.weights_key for space in spaces}
    for trial in trials:
        for key in trial.user_attrs:
            if key.split("/", 1)[0] == WEIGHTS_KEY and key not in keys:
                name = key.partition("/")[2]
                raise StudyError(
                    f"study {study.study_name!r} has another mixture, {name!r} (trial "
                    f"{trial.number}); pass all its mixtures together"
                )


def _require_trials(study: Study, history: History) -> None:
    n_own = len(history) - history.n_warm
    components = [name for space in history.joint.spaces for name in space.components]
    if n_own < _MIN_TRIALS:
        raise StudyError(
            f"study {study.study_name!r} has {counted(n_own, 'finished trial')} of this mixture "
            f"({', '.join(components)}); run at least {_MIN_TRIALS}"
        )
    if not history.arrays().complete[history.n_warm :].any():
        raise StudyError(
            f"study {study.study_name!r}: all {n_own} finished trials of this mixture were "
            "pruned; choose a pruner that lets some complete"
        )


def _best_row(fit: Fit, outlook: Outlook, options: SearchOptions) -> FloatArray:
    """Row (d,) to recommend: the mean of the best candidates that lie around the very best.

    Categories and whole numbers have no mean that can be trained with: they are those of the very
    best candidate.
    """
    from optuna.distributions import FloatDistribution

    from optuna_demix.search.proposals.demix import AVERAGE, POOL, best_of_pool

    joint = fit.joint
    stepped = [
        name
        for name, distribution in joint.others.items()
        if not isinstance(distribution, FloatDistribution) or distribution.step is not None
    ]
    if options.schedule == "demix":
        best = best_of_pool(fit, options.scalar_composite, POOL, AVERAGE)
        first = joint.decode(best[0])
        alike = [all(joint.decode(row)[name] == first[name] for name in stepped) for row in best]
        mean = best[np.array(alike)].mean(axis=0)
    else:
        first = joint.decode(fit.pool.X[int(np.argmax(outlook.merit))])
        mean = fit.best_mean(outlook.merit, _AVERAGE, radius=_RADIUS)
    return joint.project(joint.impose(mean[None], {name: first[name] for name in stepped})[0])


def _exact(joint: JointSpace, row: FloatArray) -> FloatArray:
    """The row (d,) as it can be trained with: whole numbers and steps rounded."""
    exact: FloatArray = joint.impose(row[None], joint.decode(row))[0]
    return exact


def _with_mixtures(
    joint: JointSpace, row: FloatArray, mixtures: Sequence[FloatArray]
) -> FloatArray:
    """A row (d,) with other mixtures (K,) and the same other parameters."""
    return np.concatenate([*mixtures, row[joint.n_mixture :]])


def _by_first_objective(pool: Candidates, members: NDArray[np.intp]) -> FloatArray:
    """Rows (n, d) of candidates, the best in the first objective first."""
    rows: FloatArray = pool.X[members[np.argsort(-pool.mean[members, 0], kind="stable")]]
    return rows


@dataclass(frozen=True)
class _Describer:
    """Rows as mixtures by name with their predicted scores, in the study's own orientation."""

    fit: Fit
    objectives: Sequence[str]
    merit: Callable[[FloatArray], FloatArray]
    constants: Mapping[str, Any]

    def __call__(self, X: FloatArray) -> list[Mixture]:
        if len(X) == 0:
            return []
        joint, signs = self.fit.joint, self.fit.targets.signs
        predicted = self.fit.predict(np.stack([_exact(joint, row) for row in X]))
        merit = self.merit(predicted.mean)
        return [
            self._one(row, predicted.mean[i] * signs, predicted.std[i], float(merit[i]))
            for i, row in enumerate(predicted.X)
        ]

    def _one(self, row: FloatArray, mean: FloatArray, std: FloatArray, merit: float) -> Mixture:
        joint = self.fit.joint
        params = joint.decode(row)
        weights = {}
        for space in joint.spaces:
            w = np.array([params.pop(name) for name in space.param_names])
            weights[space.name or ""] = Weights.of(space, w)
        return Mixture(
            weights=weights,
            params={**{name: _native(value) for name, value in params.items()}, **self.constants},
            capabilities=dict(zip(self.objectives, mean.tolist(), strict=True)),
            std=dict(zip(self.objectives, std.tolist(), strict=True)),
            composite=merit,
            measured=False,
        )


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def objective_names_of(study: Study) -> list[str]:
    """Names of a study's objectives: its metric names, else ``value`` or ``value 0`` and so on."""
    names = study.metric_names
    if names is not None:
        return list(names)
    n = len(study.directions)
    return ["value"] if n == 1 else [f"value {i}" for i in range(n)]
