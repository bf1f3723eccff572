"""The next proposal from a fit: startup design, acquisition, spacing.

The acquisition rule: with the predicted means mu(x) and standard deviations sigma(x) of the
objectives at a candidate x, and the merit M that joins several objectives, trial t maximizes

    a_t(x) = M(mu(x) + beta_t sigma(x)) - kl D_KL(x || prior),    beta_t ~ exploration Exp(1)

over a random half of the candidates. This is an upper confidence bound with a random factor, after
Berk et al. 2020 ("Randomised Gaussian Process Upper Confidence Bound for Bayesian Optimisation",
who draw the square of the factor from a Gamma distribution): most proposals exploit, a few explore
widely. Factor and half follow from the trial's number, so that workers that ask at the same moment
want different points.

Where trials have failed, a candidate counts with its probability of success p(x), and a failure as
the median trial, of merit m, since it costs one trial:

    p(x) a_t(x) + (1 - p(x)) m

Those less than half as likely to succeed as the likeliest come last. With the worst mixture in
place of the median trial the search kept far from the borders beyond which trials fail, and from
optima beside them; with the best quarter of the trials it failed twice as often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.search.proposals.acquisition import (
    Composite,
    best_untaken,
    nearest_distance,
    pareto_weights,
    tchebycheff,
)
from optuna_demix.search.proposals.fit import POOL, Fit, around, observed_merit
from optuna_demix.search.proposals.prior_start import choices, good_rows, is_guided
from optuna_demix.search.proposals.state import fit_size
from optuna_demix.search.proposals.success import Success, probability
from optuna_demix.search.rows.prior_mean import PriorMean
from optuna_demix.surrogate._data import finite_scores

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.proposals.state import SpaceState
    from optuna_demix.search.proposals.streams import Streams
    from optuna_demix.search.rows.history import History
    from optuna_demix.search.rows.joint_space import JointSpace

    Merit = Callable[[FloatArray], FloatArray]

_TRIED = 4  # trials in which a component must have taken part before it can be judged
_NUDGES = 8  # tries to tell a proposal apart without coming close to another
_EVALUATIONS = 3  # of one mixture, with reevaluate
_SAME = 1e-9  # total variation below which two mixtures are the same
_LEAST = 4  # scores before a surrogate can choose, where most trials fail
_DESIGN = 32  # random candidates of a startup trial, of which the farthest is taken
_SHARE_OF_POOL = 0.5  # that one trial sees


class ContinuousProposer:
    """Proposals from a surrogate that is fitted again as trials finish.

    Args:
        options: How the study is searched.
        streams: Its randomness.
        n_startup_trials: Finished trials before the surrogate is used.
        exploration: Mean of the random factor on the standard deviation.
        min_distance: Smallest total variation between a proposal and any other trial.
        reevaluate: Evaluate the best mixture again while its score looks like luck.

    Raises:
        ConfigError: If a number is negative or not finite.
    """

    def __init__(
        self,
        options: SearchOptions,
        streams: Streams,
        *,
        n_startup_trials: int,
        exploration: float,
        min_distance: float,
        reevaluate: bool,
    ) -> None:
        if n_startup_trials < 0:
            raise ConfigError(f"n_startup_trials must not be negative, got {n_startup_trials}")
        for name, value in (("exploration", exploration), ("min_distance", min_distance)):
            if not (np.isfinite(value) and value >= 0.0):
                raise ConfigError(f"{name} must be a finite number from 0 on, got {value!r}")
        self._options = options
        self._streams = streams
        self.n_startup_trials = n_startup_trials
        self._exploration = exploration
        self.min_distance = min_distance
        self.reevaluate = reevaluate

    def propose(
        self,
        number: int,
        state: SpaceState,
        joint: JointSpace,
        taken: FloatArray,
        rng: np.random.Generator,
        *,
        is_conditional: bool,
    ) -> FloatArray:
        """Next row (d,): startup design, then the best of a pool by optimistic merit.

        Args:
            number: The trial's number.
            state: What is known of the study.
            joint: Its parameters, those that are fixed for this trial pinned.
            taken: Rows (t, d) of all other trials, whatever their state.
            rng: The trial's own randomness.
            is_conditional: Whether some parameters are fixed.
        """
        if number == 0 and len(state.history) == state.history.n_warm:
            return joint.center()
        if self._is_startup(state.history, joint):
            among = self._good(state, joint) if is_guided(number) else None
            return self._design(state.history, joint, taken, rng, among)
        fit = self._fit(state)
        merit_of = self._merit(fit, rng)
        if is_conditional:
            # Candidates of the shared pool do not have the fixed weights: draw some that do.
            pool = fit.predict(joint.sample(POOL, rng))
        else:
            if self.reevaluate:
                again = self._doubtful_best(fit, taken, merit_of)
                if again is not None:
                    return again
            kept = rng.random(len(fit.pool.X)) < _SHARE_OF_POOL
            kept[0] = True
            pool = fit.pool.take(kept)
        optimism = self._exploration * rng.exponential()
        merit = fit.rank(pool, merit_of, optimism=optimism, kl=self._options.kl, caution=0.0)
        best = pool.X[best_untaken(merit, pool.X, taken, min_distance=self.min_distance)]
        return best if is_conditional else self._nudged(best, joint, taken, rng)

    def is_crowded(self, row: FloatArray, before: FloatArray, now: FloatArray) -> bool:
        """Whether a proposal has to move because of trials that came while it was made.

        Args:
            row: The proposal (d,).
            before: Rows (t, d) of all other trials that it was made with.
            now: The same rows, read again since it was written.
        """
        repeats = self.reevaluate and _times(row, before) > 0
        if repeats:
            return _times(row, now) >= _EVALUATIONS
        old, new = (nearest_distance(row[None], taken)[0] for taken in (before, now))
        return bool(new < self.min_distance and new < old)

    def _design(
        self,
        history: History,
        joint: JointSpace,
        taken: FloatArray,
        rng: np.random.Generator,
        among: FloatArray | None = None,
    ) -> FloatArray:
        """The candidate (d,) farthest from all that is taken, and likely to succeed.

        Candidates are random, or those (n, d) that a prior mean holds for good.
        """
        known = history.arrays()
        if among is not None and len(among):
            candidates = choices(among, taken, rng, min_distance=self.min_distance)
        else:
            candidates = joint.sample_for_start(_DESIGN, rng)
            if len(known.failures.X):
                candidates = np.concatenate([candidates, joint.sample(POOL, rng)])
                if len(known.X):
                    grown = around(known.X, joint, POOL, rng)
                    candidates = np.concatenate([candidates, grown])
        if len(known.failures.X) == 0:
            farthest: FloatArray = candidates[np.argmax(nearest_distance(candidates, taken))]
            return farthest
        success = Success(known.X, known.failures.X, joint.n_mixture)
        likely = probability(*success.log_odds(candidates))
        best: FloatArray = candidates[np.argmax(likely * nearest_distance(candidates, taken))]
        return best

    def _good(self, state: SpaceState, joint: JointSpace) -> FloatArray | None:
        """Rows (n, d) that the prior mean holds for good; ``None`` if there is none to ask."""
        function, targets = state.prior, state.history.targets
        if function is None or not joint.spaces:
            return None
        is_unread = len(state.history) == state.history.n_warm and not targets.benchmarks
        if is_unread and hasattr(function, "benchmarks"):
            return None  # the first score may yet tell what benchmarks there are
        if joint not in state.good:
            state.good = {
                joint: good_rows(
                    PriorMean(function, targets, joint.n_mixture),
                    joint,
                    self._options.scalar_composite,
                    kl=self._options.kl,
                    seed=self._streams.seed_of(0, "prior mean"),
                )
            }
        return state.good[joint]

    def _nudged(
        self, row: FloatArray, joint: JointSpace, taken: FloatArray, rng: np.random.Generator
    ) -> FloatArray:
        """The row (d,), moved by less than it matters and not next to what is taken."""
        for _ in range(_NUDGES):
            moved = joint.nudge(row, rng)
            if nearest_distance(moved[None], taken)[0] >= self.min_distance:
                return moved
        return row

    def _is_startup(self, history: History, joint: JointSpace) -> bool:
        """Whether too little is known for the surrogate to choose."""
        n, size = len(history), self.n_startup_trials
        known = history.arrays()
        n_failed = len(known.failures.X)
        if n + n_failed < size or n < min(size, _LEAST):
            return True
        if not known.first(fit_size(n)).complete.any():
            return True
        if not history.n_warm or n - history.n_warm >= size:
            return False
        # What earlier studies never varied, the surrogate takes to be without effect: a
        # component that is new has to be tried before it can be judged.
        tried = (known.X[:, : joint.n_mixture] > 0.0).sum(axis=0)
        return bool(tried[joint.free].min(initial=n) < min(_TRIED, size))

    def _doubtful_best(self, fit: Fit, taken: FloatArray, merit_of: Merit) -> FloatArray | None:
        """Row (d,) of the best trial if its score looks like luck, else None.

        Repeats are counted among all trials, not among those of the fit, which may be older.
        """
        trials = fit.trials
        merit = merit_of(finite_scores(trials.V))
        best = int(np.argmax(observed_merit(merit, trials)))
        row = trials.X[best]
        mean = fit.predict(row[None]).mean
        expected, noisy = merit_of(np.concatenate([mean, mean + fit.noise]))
        is_doubtful = merit[best] > noisy > expected and _times(row, taken) < _EVALUATIONS
        return row if is_doubtful else None

    def _fit(self, state: SpaceState) -> Fit:
        """The current fit; a new one only when enough trials have come since the last."""
        size = fit_size(len(state.history))
        known = state.history.arrays()
        failures = known.failures.first(fit_size(len(known.failures.X)))
        if state.fit is None or state.fit.n_trials != size:
            trials = known.first(size)._replace(failures=failures)
            seed = self._streams.seed_of(size, "fit")
            joint, targets = state.history.joint, state.history.targets
            kind, prior = self._options.kind, state.prior
            state.fit = Fit(kind, joint, targets, trials, seed, prior_mean=prior)
            state.fit.grow_pool(self._options.scalar_composite)
            state.tell_of_constant_scores(state.fit)
        elif not np.array_equal(state.fit.trials.failures.numbers, failures.numbers):
            state.fit = state.fit.with_failures(failures)
            state.fit.grow_pool(self._options.scalar_composite)
        return state.fit

    def _merit(self, fit: Fit, rng: np.random.Generator) -> Merit:
        """The merit (n,) of objective scores (n, m) for one proposal."""
        composite = self._options.composite
        if composite != "pareto":
            return Composite(composite, fit.reference)
        n_objectives = fit.reference.shape[1]
        ranks = [Composite("rank", fit.reference[:, [j]]) for j in range(n_objectives)]
        trade_off = pareto_weights(n_objectives, rng)

        def merit(scores: FloatArray) -> FloatArray:
            columns = [rank(scores[:, [j]]) for j, rank in enumerate(ranks)]
            return tchebycheff(np.stack(columns, axis=1), trade_off)

        return merit


def _times(row: FloatArray, taken: FloatArray) -> int:
    """How many of the rows (t, d) are the same as the row (d,)."""
    return int((nearest_distance(taken, row[None]) < _SAME).sum())
