"""``ReportData``: everything that figures and note show, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search._analysis import analyse
from optuna_demix.search._predictions import read_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search._result import Recommendation
    from optuna_demix.surrogate._validation import Validation

_STEP = 0.1  # share of data that is moved to see what it does: ten points
_PROBES = 256  # random mixtures it is moved in


@dataclass(frozen=True)
class Effects:
    """What ten points more of one component do to each benchmark.

    Attributes:
        benchmarks: Their names, b of them.
        change: Mean change (b, K) of the predicted score over random mixtures, all other weights
            shrinking in proportion.
        spread: Standard deviation (b,) of the predicted scores of the random mixtures.
    """

    benchmarks: tuple[str, ...]
    change: FloatArray
    spread: FloatArray


@dataclass(frozen=True)
class ReportData:
    """A study as a report shows it.

    Arrays of trials hold one row for each finished trial of the study itself, by number.

    Attributes:
        recommendation: The recommended mixture and its rivals.
        space: The mixture.
        objectives: Names of the objectives, m of them.
        signs: +1 for a maximised objective, -1 for a minimised one, (m,).
        numbers: Numbers of the trials (n,).
        weights: Merge weights (n, K).
        values: Objective values (n, m), in the study's orientation.
        merit: Composite (n,), higher is better; NaN for a trial that breaks a constraint.
        proposed: Objective values (n, m) predicted when the trial was proposed; NaN where no
            surrogate was used yet.
        proposed_std: Standard deviations (n, m) of the values about them.
        held_out: Objective values (n, m) predicted by a surrogate that has not seen the trial.
        held_out_std: Standard deviations (n, m) of the values about them.
        effects: Which component moves which benchmark.
        validation: Held-out accuracy of the surrogate, by benchmark as in ``effects``.
        states: Number of trials by state, such as ``{"COMPLETE": 60, "RUNNING": 2}``.
    """

    recommendation: Recommendation
    space: MixtureSpace
    objectives: tuple[str, ...]
    signs: FloatArray
    numbers: NDArray[np.int64]
    weights: FloatArray
    values: FloatArray
    merit: FloatArray
    proposed: FloatArray
    proposed_std: FloatArray
    held_out: FloatArray
    held_out_std: FloatArray
    effects: Effects
    validation: Validation
    states: Mapping[str, int]

    def best_first(self) -> NDArray[np.intp]:
        """Indices of the trials that keep all constraints, the best composite first."""
        order = np.argsort(-self.merit, kind="stable")
        return order[np.isfinite(self.merit[order])]


def gather(
    study: Study,
    space: MixtureSpace,
    *,
    surrogate: str | None = None,
    composite: str | Sequence[float] = "rank",
    schedule: str = "continuous",
    kl: float = 0.0,
    warm_start: Sequence[Study] = (),
    seed: int = 0,
) -> ReportData:
    """Read a study and fit its surrogate, as :func:`~optuna_demix.search.recommendation` does.

    Args:
        study: The study; trials of any sampler will do.
        space: Its mixture.
        surrogate: As in ``recommend``, like all that follow.
        composite: Merit of several objectives.
        schedule: ``"continuous"`` or ``"demix"``.
        kl: Merit given up for each nat of divergence from the prior.
        warm_start: Earlier studies to learn from as well.
        seed: Seed of the pool and the surrogate.

    Raises:
        StudyError: If the study has fewer than two finished trials with this mixture.
    """
    from optuna_demix.surrogate._data import finite_scores

    analysis = analyse(
        study,
        space,
        surrogate=surrogate,
        composite=composite,
        schedule=schedule,
        kl=kl,
        warm_start=warm_start,
        seed=seed,
    )
    trials = study.get_trials(deepcopy=False)  # only now: none of those analysed is missing
    fit, validation = analysis.fit, analysis.validation
    signs, mixing = fit.targets.signs, fit.targets.mixing
    own = analysis.trials.complete & (analysis.trials.numbers >= 0)  # pruned ones lack a score
    arrays = analysis.trials.take(own)
    proposed, proposed_std = read_predictions(
        [trials[number] for number in arrays.numbers], analysis.objectives
    )
    merit = analysis.recommendation.merit(finite_scores(arrays.V))
    return ReportData(
        recommendation=analysis.recommendation,
        space=space,
        objectives=analysis.objectives,
        signs=signs,
        numbers=arrays.numbers,
        weights=arrays.X,
        values=arrays.V * signs,
        merit=np.where(np.any(arrays.C > 0.0, axis=1), np.nan, merit),
        proposed=proposed,
        proposed_std=proposed_std,
        held_out=(validation.mean[own] @ mixing) * signs,
        # As in Fit.predict: what is not known of a mixture adds up over benchmarks.
        held_out_std=np.hypot(
            validation.std[own] @ np.abs(mixing),
            np.sqrt(validation.noise[own] ** 2 @ mixing**2),
        ),
        effects=effects_of(
            fit.surrogate.predict, space, fit.targets.benchmarks or analysis.objectives, seed=seed
        ),
        validation=validation,
        states=dict(Counter(trial.state.name for trial in trials)),
    )


def effects_of(
    predict: Callable[[FloatArray], FloatArray],
    space: MixtureSpace,
    benchmarks: Sequence[str],
    *,
    seed: int = 0,
) -> Effects:
    """Move ten points of weight to each component in turn and see what is predicted.

    A mixture w becomes 0.9 w + 0.1 e_k. The mean is over random mixtures of the space, so that
    it says what a component does in general, and not at one mixture only.

    Args:
        predict: Scores (N, b) of merge weights (N, K), higher is better.
        space: The mixture.
        benchmarks: Names of the scores.
        seed: Seed of the random mixtures.
    """
    base = space.sample(_PROBES, np.random.default_rng([seed, 3]))  # (p, K)
    corners = np.eye(len(space))
    moved = (1.0 - _STEP) * base[None] + _STEP * corners[:, None]  # (K, p, K)
    before = predict(base)  # (p, b)
    after = predict(moved.reshape(-1, len(space))).reshape(len(space), len(base), -1)
    change = (after - before).mean(axis=1)  # (K, b)
    return Effects(tuple(benchmarks), change.T, before.std(axis=0))
