"""``ReportData``: everything that figures and note show, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.attributes import MERGED_PREFIX, PROBABILITY_PREFIX
from optuna_demix.search._analysis import analyze
from optuna_demix.search._predictions import read_predictions, read_proxy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search._analysis import Analysis
    from optuna_demix.search._result import Recommendation
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.proposals.acquisition import Composite
    from optuna_demix.surrogate import Surrogate
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
class Predictor:
    """What predicts the scores of any mixture.

    Attributes:
        surrogate: Predicts benchmarks, b of them, from rows (n, d).
        mixing: Matrix (b, m): objectives = benchmarks @ mixing, higher is better.
        composite: The merit of objectives.
        rows: Row (d,) of each mixture of the recommendation, by its name: the merge weights of
            the mixture shown, then those of others, then the other parameters in [0, 1].
    """

    surrogate: Surrogate
    mixing: FloatArray
    composite: Composite
    rows: Mapping[str, FloatArray]


@dataclass(frozen=True)
class ReportData:
    """A study as a report shows it.

    Arrays of trials hold one row for each finished trial of the study itself, by number.

    Attributes:
        recommendation: The recommended mixture and its rivals.
        space: The mixture; of several the first.
        objectives: Names of the objectives, m of them.
        signs: +1 for a maximized objective, -1 for a minimized one, (m,).
        numbers: Numbers of the trials (n,).
        weights: Merge weights (n, K).
        values: Objective values (n, m), in the study's orientation.
        merit: Composite (n,), higher is better; NaN for a trial that breaks a constraint.
        proposed: Objective values (n, m) predicted when the trial was proposed; NaN where no
            surrogate was used yet.
        proposed_std: Standard deviations (n, m) of the values about them.
        held_out: Objective values (n, m) predicted by a surrogate that has not seen the trial.
        held_out_std: Standard deviations (n, m) of the values about them.
        merged: Objective values (n, m) of each trial's merged model, where two proxies score it.
        probability: Those of the probability mixture of each trial's weights;
            NaN where workers have written none.
        effects: Which component moves which benchmark, all other parameters as recommended.
        validation: Held-out accuracy of the surrogate, by benchmark as in ``effects``.
        states: Number of trials by state, such as ``{"COMPLETE": 60, "RUNNING": 2}``.
        predictor: What predicts the scores of any mixture.
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
    merged: FloatArray
    probability: FloatArray
    effects: Effects
    validation: Validation
    states: Mapping[str, int]
    predictor: Predictor

    def weights_of(self, name: str) -> FloatArray:
        """Merge weights (K,) of a mixture of the recommendation, such as ``"prior"``."""
        weights = self.recommendation.mixtures[name].weights[self.space.name or ""]
        return np.array(list(weights.merge_weights.values()))

    def best_first(self) -> NDArray[np.intp]:
        """Indices of the trials that keep all constraints, the best composite first."""
        order = np.argsort(-self.merit, kind="stable")
        return order[np.isfinite(self.merit[order])]


def gather(
    study: Study,
    space: MixtureSpace | Sequence[MixtureSpace] | None = None,
    *,
    options: SearchOptions | None = None,
) -> ReportData:
    """Read a study and fit its surrogate, as :func:`~optuna_demix.recommend` does.

    Of several mixtures, the plots show the first.

    Args:
        study: The study; trials of any sampler will do.
        space: Its mixture, or all its mixtures; ``None`` for those of the study's own sampler.
        options: How to read the study; ``None`` for what its own sampler says.

    Raises:
        ConfigError: As from ``recommend``.
        StudyError: If the study has fewer than two finished trials with these mixtures.
    """
    from optuna_demix.surrogate._data import finite_scores

    analysis = analyze(study, space, options=options)
    trials = study.get_trials(deepcopy=False)  # only now: none of those analyzed is missing
    fit, validation = analysis.fit, analysis.validation
    signs, mixing = fit.targets.signs, fit.targets.mixing
    own = analysis.trials.complete & (analysis.trials.numbers >= 0)  # pruned ones lack a score
    arrays = analysis.trials.take(own)
    shown_trials = [trials[number] for number in arrays.numbers]
    proposed, proposed_std = read_predictions(shown_trials, analysis.objectives)
    merit = analysis.recommendation.merit(finite_scores(arrays.V))
    shown = analysis.spaces[0]

    def predict(W: FloatArray) -> FloatArray:
        rows = np.repeat(analysis.row[None], len(W), axis=0)
        rows[:, : len(shown)] = W
        return fit.surrogate.predict(rows)

    return ReportData(
        recommendation=analysis.recommendation,
        space=shown,
        objectives=analysis.objectives,
        signs=signs,
        numbers=arrays.numbers,
        weights=arrays.X[:, : len(shown)],
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
        merged=read_proxy(shown_trials, fit.targets, MERGED_PREFIX),
        probability=read_proxy(shown_trials, fit.targets, PROBABILITY_PREFIX),
        effects=effects_of(
            predict,
            shown,
            fit.targets.benchmarks or analysis.objectives,
            seed=analysis.seed,
        ),
        validation=validation,
        states=dict(Counter(trial.state.name for trial in trials)),
        predictor=Predictor(fit.surrogate, mixing, analysis.merit, _rows_of(analysis)),
    )


def _rows_of(analysis: Analysis) -> dict[str, FloatArray]:
    """Row (d,) of each mixture of a recommendation."""
    rows = {}
    for name, mixture in analysis.recommendation.mixtures.items():
        params = dict(mixture.params)
        for space, weights in zip(analysis.spaces, mixture.weights.values(), strict=True):
            params |= zip(space.param_names, weights.merge_weights.values(), strict=True)
        row = analysis.fit.joint.encode_params(params)
        rows[name] = analysis.row if row is None else row
    return rows


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
