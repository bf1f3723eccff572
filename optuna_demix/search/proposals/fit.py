"""A surrogate fitted to some trials, and the candidates it ranks. No study, no storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optuna_demix.search.proposals.acquisition import (
    Composite,
    expected_merit,
    feasible_first,
    nearest_distance,
)
from optuna_demix.search.proposals.cheap import CheapPriorMean, estimated_from_cheap
from optuna_demix.search.proposals.success import Success, probability
from optuna_demix.search.rows.prior_mean import PriorMean
from optuna_demix.search.rows.pruned import with_estimates
from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._data import finite_scores
from optuna_demix.surrogate._kinds import MANY_SOURCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.history import Arrays, Failures
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.search.rows.prior_mean import ScoreOfMixtures
    from optuna_demix.search.rows.targets import Targets

    Merit = Callable[[FloatArray], FloatArray]  # (n,) of objective scores (n, m)

POOL = 2048  # fresh candidates of one fit
CAUTION = 2.0  # with which success is judged where a candidate is to be recommended
_ELITES = 16  # best trials that candidates are grown around
_REFINED = 64  # best candidates of the pool that a second generation grows around
_AS_LIKELY = 0.9  # to succeed as the best candidate: then a mean of candidates is as good
_SCALES = (-2.7, -0.5)  # log10 of the share of data that a perturbation moves


class Candidates(NamedTuple):
    """Rows and what a fit predicts of them."""

    X: FloatArray  # rows (n, d)
    mean: FloatArray  # objective scores (n, m)
    std: FloatArray  # their standard deviations (n, m)
    limits: FloatArray  # constraint values (n, c) in units of their spread, feasible up to 0
    limits_std: FloatArray  # their standard deviations (n, c)
    log_odds: FloatArray  # of a trial that does not fail (n,); infinite where none ever did
    log_odds_std: FloatArray  # their standard deviations (n,)

    @property
    def success(self) -> FloatArray:
        """Probability (n,) that a trial does not fail."""
        return probability(self.log_odds, self.log_odds_std)

    def risk(self, caution: float = CAUTION) -> FloatArray:
        """By how much (n,) each is too likely to fail; up to 0 it is not.

        Too likely is: half as likely to succeed as the likeliest. Where every trial may well fail,
        that is no reason against a single candidate.

        Args:
            caution: Standard deviations by which the log odds are taken as lower.
        """
        success = probability(self.log_odds - caution * self.log_odds_std)
        risk: FloatArray = 0.5 * success.max(initial=0.0) - success
        return risk

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Candidates:
        """Some of the rows, by mask or index."""
        return Candidates(*(array[rows] for array in self))

    def join(self, other: Candidates) -> Candidates:
        """These rows, then the others."""
        return Candidates(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Fit:
    """A surrogate fitted to the first trials of a study, with a pool of predicted candidates.

    Trials that failed have no score to regress: where trials fail is learned beside the scores.

    Args:
        kind: Kind of the surrogate.
        joint: The parameters of a row.
        targets: What is regressed, and how objectives follow from it.
        trials: The trials.
        seed: Seed of the surrogate and of the pool.
        prior_mean: Cheap prediction of the scores of merge weights to start from.
    """

    def __init__(
        self,
        kind: str,
        joint: JointSpace,
        targets: Targets,
        trials: Arrays,
        seed: int,
        *,
        prior_mean: ScoreOfMixtures | None = None,
    ) -> None:
        self.joint = joint
        self.targets = targets
        self.n_trials = len(trials.X)
        self.seed = seed
        self._succeeded = trials.X
        self.success = Success(trials.X, trials.failures.X, joint.n_mixture)
        trials, errors = with_estimates(trials, targets.mixing)
        self.trials = trials
        prior = None
        if prior_mean is not None and joint.spaces:
            prior = PriorMean(prior_mean, targets, joint.n_mixture)
        guessed = estimated_from_cheap(trials)
        Y, errors = np.where(guessed, np.nan, trials.Y), np.where(guessed, 0.0, errors)
        self.surrogate = self._fitted(kind, Y, errors, self._with_cheap(kind, prior))
        # Constraints are regressed like scores; what varies little is as strict as what does not.
        known = np.isfinite(trials.C).any(axis=0)
        C = finite_scores(trials.C[:, known]) if known.any() else trials.C[:, known]
        self._limit_scale = np.maximum(np.nanstd(C, axis=0), 1e-12) if known.any() else np.ones(0)
        self._limits = self._fitted(kind, C / self._limit_scale) if known.any() else None
        self.pool = self.predict(np.empty((0, joint.n_columns)))
        self.reference: FloatArray = self.pool.mean

    def _with_cheap(self, kind: str, prior: PriorMean | None) -> PriorMean | CheapPriorMean | None:
        """The prior mean, with what cheap scores say of screened benchmarks."""
        cheap = self.trials.cheap
        columns = np.flatnonzero(np.isfinite(cheap).any(axis=0))
        if len(columns) == 0:
            return prior
        surrogate = self._fitted(kind, cheap[:, columns])
        return CheapPriorMean(prior, surrogate.predict, columns, cheap.shape[1])

    def _fitted(
        self,
        kind: str,
        Y: FloatArray,
        errors: FloatArray | None = None,
        prior: PriorMean | CheapPriorMean | None = None,
    ) -> Surrogate:
        seed, n_mixture = self.seed % 2**31, self.joint.n_mixture
        unit = self.joint.center()[:n_mixture]
        surrogate = Surrogate(kind, seed=seed, n_mixture=n_mixture, prior_mean=prior, unit=unit)
        return surrogate.fit(self.trials.X, finite_scores(Y), errors)

    def with_failures(self, failures: Failures) -> Fit:
        """The same surrogate beside other failed trials; the pool has to be grown again."""
        fit = copy(self)
        fit.trials = self.trials._replace(failures=failures)
        fit.success = Success(self._succeeded, failures.X, self.joint.n_mixture)
        return fit

    @property
    def noise(self) -> FloatArray:
        """Standard deviation (m,) of an objective's score about its prediction."""
        noise: FloatArray = np.sqrt(self.surrogate.noise_**2 @ self.targets.mixing**2)
        return noise

    def predict(self, X: FloatArray) -> Candidates:
        """Predictions at rows (n, d)."""
        mixing = self.targets.mixing
        mean, std = self.surrogate.predict(X, return_std=True)
        limits = limits_std = np.empty((len(X), 0))
        if self._limits is not None:
            limits, limits_std = self._limits.predict(X, return_std=True)
        # Benchmarks of one capability share what is not known of a mixture: their errors add up.
        # Taken as independent they seemed to cancel, and searches stopped at local optima.
        std = std @ np.abs(mixing)
        return Candidates(X, mean @ mixing, std, limits, limits_std, *self.success.log_odds(X))

    def rank(
        self,
        pool: Candidates,
        merit: Merit,
        *,
        optimism: float = 0.0,
        lenience: float = 0.0,
        kl: float = 0.0,
        caution: float = CAUTION,
    ) -> FloatArray:
        """Merit (n,) by which candidates are chosen: failures, constraints and prior counted in.

        A candidate counts as its merit times its probability of success, and for the rest as the
        median trial: a failure costs one trial. Those that break a constraint, or are less than
        half as likely to succeed as others, come last.

        Args:
            pool: The candidates.
            merit: Merit of objective scores.
            optimism: Standard deviations that are added to the predicted scores.
            lenience: Standard deviations by which a constraint may be missed.
            kl: Merit given up for each nat of divergence from the prior.
            caution: Standard deviations by which the log odds of success are taken as lower.
        """
        value = merit(pool.mean + optimism * pool.std)
        if kl > 0:
            value = value - kl * self.joint.divergence(pool.X)
        limits = pool.limits - lenience * pool.limits_std
        if len(self.trials.failures.X):
            median = float(np.nanmedian(merit(finite_scores(self.trials.V))))
            value = expected_merit(value, pool.success, median)
            limits = np.column_stack([limits, pool.risk(caution)])
        return feasible_first(value, limits)

    def grow_pool(
        self,
        composite: str | Sequence[float] = "rank",
        *,
        size: int = POOL,
        generations: int | None = None,
        optimism: float = 1.0,
    ) -> None:
        """Fill the pool: fresh points, moves around the best trials, blends, and refinements.

        Args:
            composite: Merit of several objectives.
            size: Number of fresh points; the others are in proportion.
            generations: How often the best of the pool are grown around once more; ``None`` for
                once, or four times where there are many sources and random moves seldom help.
            optimism: Standard deviations that are added to a mean to tell the best. With 0 they
                are those to recommend, and not only to try: none that may well fail.
        """
        rng = np.random.default_rng([self.seed, 2])
        fresh = self.joint.sample(size, rng)
        V = finite_scores(self.trials.V)
        merit = feasible_first(Composite(composite, V)(V), self.trials.C)
        elites = self.trials.X[np.argsort(-merit, kind="stable")[:_ELITES]]
        grown = around(elites, self.joint, size, rng)
        left, right = rng.integers(len(elites), size=(2, size // 4))
        blends = self.joint.blend(elites[left], elites[right], rng)
        self.pool = self.predict(np.concatenate([fresh, grown, blends]))
        # Ranks refer to what a random mixture would reach, however crowded the optimum becomes.
        self.reference = self.pool.mean[:size]
        ranked = Composite(composite, self.reference)
        caution = 0.0 if optimism > 0.0 else CAUTION
        if generations is None:
            generations = 4 if self.joint.n_mixture >= MANY_SOURCES else 1
        for _ in range(generations):
            pool = self.pool
            merit = self.rank(pool, ranked, optimism=optimism, lenience=optimism, caution=caution)
            best = pool.X[np.argsort(-merit, kind="stable")[:_REFINED]]
            self.pool = pool.join(self.predict(around(best, self.joint, size // 2, rng)))

    def best_mean(self, merit: FloatArray, n: int, *, radius: float) -> FloatArray:
        """Mean (d,) of the n best candidates of the pool that lie around the very best one.

        Their errors cancel in the mean. Only neighbours count: ranks can have several optima,
        and what lies halfway between two of them may be worse than both.

        Args:
            merit: Merit of the candidates.
            n: Number of candidates to average, at most.
            radius: Largest total variation from the best one.
        """
        X = self.pool.X
        order = np.argsort(-merit, kind="stable")
        near = nearest_distance(X[order], X[order[:1]]) <= radius
        best: FloatArray = X[order[0]]
        mean: FloatArray = X[order[near][:n]].mean(axis=0)
        # Where trials fail need not be convex: what lies between good mixtures may be bad.
        likely = probability(*self.success.log_odds(np.stack([best, mean])))
        return mean if likely[1] >= _AS_LIKELY * likely[0] else best


def observed_merit(merit: FloatArray, trials: Arrays) -> FloatArray:
    """Merit (n,) of trials as they were measured: pruned ones were not, and come last."""
    return np.where(trials.complete, feasible_first(merit, trials.C), -np.inf)


def around(centers: FloatArray, joint: JointSpace, n: int, rng: np.random.Generator) -> FloatArray:
    """Rows (n, d) around random centers (c, d), from tiny moves to large ones."""
    scales = np.logspace(*_SCALES, 8)
    chosen = centers[rng.integers(len(centers), size=n)]
    parts = [
        joint.perturb(part, float(scale), rng)
        for part, scale in zip(np.array_split(chosen, len(scales)), scales, strict=True)
        if len(part)
    ]
    return np.concatenate(parts)
