"""``DemixSampler``: mixtures proposed by a LightGBM surrogate, as an Optuna sampler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import TrialState

from optuna_demix.attributes import PROPOSAL_ATTR
from optuna_demix.errors import ConstraintError
from optuna_demix.mixture import MixtureSpace
from optuna_demix.search.proposals.acquisition import (
    Composite,
    best_untaken,
    feasible_first,
    nearest_distance,
    pareto_weights,
    tchebycheff,
)
from optuna_demix.search.proposals.continuous import EVALUATIONS, NUDGES, SAME, TRIED
from optuna_demix.search.proposals.demix import (
    PAPER_POOL,
    PAPER_SIZES,
    PAPER_TOP,
    iteration_of,
    paper_best,
)
from optuna_demix.search.proposals.fit import POOL, Fit, observed_merit
from optuna_demix.search.proposals.state import StudyState, fit_size, identity_of
from optuna_demix.search.rows.history import History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._data import finite_scores

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.proposals.state import SpaceState

_MOVES = 4  # proposals of one trial, where other workers keep choosing the same


class DemixSampler(BaseSampler):
    """Sampler for data mixtures: constrained weights on the simplex from a LightGBM surrogate.

    The first trial is the prior mixture, and the weights of every trial lie on the simplex and
    within all constraints of the space. Randomness comes from ``(seed, trial.number)``: workers
    that share a study and a seed never draw the same point, and a resumed study goes on with the
    same sequence. All state is rebuilt from the storage.

    Parameters beside the mixture join the surrogate where the search space is static; dynamic
    ones go to ``independent_sampler``. Constraints set by ``Trial.set_constraint`` are learned
    like scores: mixtures that the surrogate expects to break one come last. Of trials that
    :class:`~optuna_demix.MixtureObjective` raced and a pruner dropped, it learns what they would
    have scored on all items.

    Example:
        .. code-block:: python

            import optuna
            from optuna_demix import DemixSampler, MixtureSpace, recommend

            space = MixtureSpace(["web", "code", "math"])


            def objective(trial):
                w = space.suggest(trial)
                return -((w["web"] - 0.5) ** 2) - (w["code"] - 0.3) ** 2


            study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=0))
            study.optimize(objective, n_trials=40)
            print(recommend(study, space))

    Args:
        space: The mixture, or several mixtures with different names.
        seed: Seed of everything that is random. Workers may share it.
        n_startup_trials: Finished trials before the surrogate is used. Unused by
            ``schedule="paper"``.
        surrogate: Kind of :class:`~optuna_demix.surrogate.Surrogate`; default ``"auto"``, and
            the published ``"lightgbm"`` with ``schedule="paper"``.
        schedule: ``"continuous"`` refits as trials finish. ``"paper"`` works in iterations: the
            first samples the prior, each later one draws at random among the best of a large
            pool (DeMix, section 3.3).
        composite: Merit of several objectives: ``"rank"`` (mean percentile rank), ``"mean"``,
            weights by objective, or ``"pareto"`` (another random trade-off for each trial).
        independent_sampler: Sampler of parameters outside the static search space; default
            :class:`optuna.samplers.TPESampler`.
        warn_independent_sampling: Warn when a parameter of the static search space has to be
            drawn by ``independent_sampler``.
        exploration: Size of the bonus on the surrogate's standard deviation.
        min_distance: Smallest total variation between a proposal and any other trial.
        kl: Merit that is given up for each nat of Kullback-Leibler divergence between the
            mixture and its prior: with 0.1, a mixture at 1 nat must beat a further tenth of all
            random ones. Give ``recommend`` the same.
        reevaluate: For noisy scores: evaluate the best trial's mixture again, up to three times
            in all, while its score exceeds its prediction by more than the noise. Such a trial
            repeats an earlier one exactly, whatever ``min_distance``.
        warm_start: Earlier studies whose trials are learned from as well. Components they did
            not have count as weight 0.
        schedule_sizes: Trials of each iteration of ``schedule="paper"``; the last one repeats.
        pool_size: Candidates ranked in each iteration of ``schedule="paper"``.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        space: MixtureSpace | Sequence[MixtureSpace],
        *,
        seed: int | None = None,
        n_startup_trials: int = 8,
        surrogate: str | None = None,
        schedule: Literal["continuous", "paper"] = "continuous",
        composite: str | Sequence[float] = "rank",
        independent_sampler: BaseSampler | None = None,
        warn_independent_sampling: bool = True,
        exploration: float = 1.0,
        min_distance: float = 1e-3,
        kl: float = 0.0,
        reevaluate: bool = False,
        warm_start: Sequence[Study] = (),
        schedule_sizes: Sequence[int] = PAPER_SIZES,
        pool_size: int = PAPER_POOL,
    ) -> None:
        spaces = (space,) if isinstance(space, MixtureSpace) else tuple(space)
        names = [name for each in spaces for name in each.param_names]
        if len(set(names)) < len(names):
            raise ValueError(
                "two mixtures have a component in common; give each a MixtureSpace(name=…)"
            )
        if schedule not in ("continuous", "paper"):
            raise ValueError(f"schedule must be 'continuous' or 'paper', got {schedule!r}")
        if n_startup_trials < 0:
            raise ValueError(f"n_startup_trials must not be negative, got {n_startup_trials}")
        if exploration < 0 or min_distance < 0 or kl < 0:
            raise ValueError("exploration, min_distance and kl must not be negative")
        if not schedule_sizes or min(schedule_sizes) < 1 or pool_size < 1:
            raise ValueError("schedule_sizes and pool_size must be positive")
        kind = surrogate or ("lightgbm" if schedule == "paper" else "auto")
        Surrogate(kind)  # refuses an unknown kind here rather than in the middle of a study
        if composite != "pareto" and isinstance(composite, str):
            Composite(composite, np.zeros((1, 1)))

        self._spaces = spaces
        self._rng = LazyRandomState(seed)
        self._seed = seed
        self._n_startup_trials = n_startup_trials
        self._surrogate = kind
        self._schedule = schedule
        self._composite = composite
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._owns_independent_sampler = independent_sampler is None
        self._warn_independent_sampling = warn_independent_sampling
        self._exploration = exploration
        self._min_distance = min_distance
        self._kl = kl
        self._reevaluate = reevaluate
        self._warm_start = tuple(warm_start)
        self._schedule_sizes = tuple(int(size) for size in schedule_sizes)
        self._pool_size = pool_size
        self._entropy: int | None = None
        self._states: dict[tuple[int, int], StudyState] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_states"]  # rebuilt from the storage
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = {}
        self._lock = threading.RLock()

    def reseed_rng(self) -> None:
        """Draw new randomness from the operating system, here and in the independent sampler."""
        self._rng.rng.seed()
        self._entropy = None
        self._seed = None
        self._independent_sampler.reseed_rng()

    # Search space ----------------------------------------------------------------------------

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Merge weights, which are known from the first trial on, and all static parameters."""
        with self._lock:
            state = self._state_of(study)
            static = state.search_space.calculate(study)
        space: dict[str, BaseDistribution] = {}
        for mixture in self._spaces:
            space.update(mixture.distributions())
        space.update({name: d for name, d in static.items() if name not in space})
        return {name: d for name, d in space.items() if not d.single()}

    # Sampling --------------------------------------------------------------------------------

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw merge weights and static parameters together."""
        if not search_space:
            return {}
        stored = trial.system_attrs.get(PROPOSAL_ATTR)
        if isinstance(stored, dict) and _fits(stored, search_space):
            return {name: stored[name] for name in search_space}  # a retried trial
        mixture_names = {name for space in self._spaces for name in space.param_names}
        others = {n: d for n, d in search_space.items() if n not in mixture_names}
        wants_mixture = any(name in mixture_names for name in search_space)
        spaces = self._spaces if wants_mixture else ()
        with self._lock:
            state = self._state_of(study).joint(spaces, others)
            for _ in range(_MOVES):
                params = self._propose(study, trial, state)
                params.update({n: _native(params[n], d) for n, d in search_space.items()})
                study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL_ATTR, params)
                if not self._is_crowded(study, trial, state.history.joint, params):
                    break
        return {name: params[name] for name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter outside the static search space with the independent sampler."""
        for space in self._spaces:
            if param_name in space.param_names:
                # Only after a change of bounds within a study: the draw is repeatable, so that
                # the weights of one trial still belong together.
                weights = space.sample(1, self._generator(trial.number, "independent"))[0]
                value = float(weights[space.param_names.index(param_name)])
                low, high = param_distribution.low, param_distribution.high  # type: ignore[attr-defined]
                return min(max(value, low), high)
        if self._warn_independent_sampling:
            self._warn_once(study, param_name)
        sampler = self._independent_sampler
        if self._owns_independent_sampler and self._seed is not None:
            # A stream of its own for every trial: workers that share a seed must not repeat
            # each other here either.
            draw = self._generator(trial.number, param_name).integers(2**31)
            sampler = TPESampler(seed=int(draw))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forward to the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Forward to the independent sampler."""
        self._independent_sampler.after_trial(study, trial, state, values)

    def _is_crowded(
        self, study: Study, trial: FrozenTrial, joint: JointSpace, params: Mapping[str, Any]
    ) -> bool:
        """Whether another worker has, at the same moment, chosen almost the same.

        Both have written before they look, so that at least one of them sees the other.
        """
        if self._schedule == "paper" or self._reevaluate or self._min_distance == 0:
            return False
        row = joint.encode_params(params)
        if row is None or trial.params or "fixed_params" in trial.system_attrs:
            return False
        trials = study._get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        running = _rows_of_running(trials, trial.number, joint)
        return bool(nearest_distance(row[None], running)[0] < self._min_distance)

    # Proposals -------------------------------------------------------------------------------

    def _propose(self, study: Study, trial: FrozenTrial, state: SpaceState) -> dict[str, Any]:
        trials = study._get_trials(deepcopy=False, use_cache=False)
        state.history.update(trials)
        state.tell_of_trouble(trials)
        fixed = {**_fixed_by_wrapper(study), **trial.params}
        fixed.update(trial.system_attrs.get("fixed_params", {}))
        fixed = {n: v for n, v in fixed.items() if n in state.names}
        joint = state.history.joint
        if fixed:
            try:
                joint = joint.pin(fixed)
            except ConstraintError as error:
                warnings.warn(
                    f"Trial {trial.number}: its fixed weights leave no mixture within the "
                    f"constraints ({error}); the others are drawn freely and the whole is "
                    "projected.",
                    stacklevel=2,
                )
        rng = self._generator(trial.number, "proposal")
        if self._schedule == "paper":
            row = self._paper_row(trial.number, state, joint, rng)
        else:
            running = _rows_of_running(trials, trial.number, joint)
            row = self._continuous_row(trial.number, state, joint, running, rng, bool(fixed))
        row = joint.impose(row[None], fixed)[0]
        return joint.decode(row)

    def _continuous_row(
        self,
        number: int,
        state: SpaceState,
        joint: JointSpace,
        running: FloatArray,
        rng: np.random.Generator,
        is_conditional: bool,
    ) -> FloatArray:
        """Next row (d,): startup design, then the best of a pool by merit plus exploration."""
        seen = state.history.arrays().X
        if number == 0 and len(seen) == state.history.n_warm:
            return joint.center()
        if self._is_startup(state.history, joint):
            candidates = joint.sample(32, rng)
            taken = np.concatenate([seen, running])
            farthest: FloatArray = candidates[int(np.argmax(nearest_distance(candidates, taken)))]
            return farthest
        fit = self._fit(state)
        if is_conditional:
            # Candidates of the shared pool do not have the fixed weights: draw some that do.
            pool = fit.predict(joint.sample(POOL, rng))
        else:
            if self._reevaluate:
                again = self._doubtful_best(fit, running, rng)
                if again is not None:
                    return again
            # Another half of the pool for every trial, so that workers asking at the same
            # moment do not all see the same best candidate.
            kept = rng.random(len(fit.pool.X)) < 0.5
            kept[0] = True
            pool = fit.pool.take(kept)
        optimism = self._exploration * rng.exponential()
        merit = self._merit(fit, pool.mean + optimism * pool.std, rng)
        if self._kl > 0:
            merit = merit - self._kl * joint.divergence(pool.X)
        merit = feasible_first(merit, pool.limits)
        taken = np.concatenate([seen, running])
        best = pool.X[best_untaken(merit, pool.X, taken, min_distance=self._min_distance)]
        return best if is_conditional else self._nudged(best, joint, taken, rng)

    def _nudged(
        self, row: FloatArray, joint: JointSpace, taken: FloatArray, rng: np.random.Generator
    ) -> FloatArray:
        """The row (d,), moved by less than it matters and not next to what is taken."""
        for _ in range(NUDGES):
            moved = joint.nudge(row, rng)
            if nearest_distance(moved[None], taken)[0] >= self._min_distance:
                return moved
        return row

    def _is_startup(self, history: History, joint: JointSpace) -> bool:
        """Whether too little is known for the surrogate to choose."""
        n, size = len(history), self._n_startup_trials
        fitted = history.arrays().first(fit_size(n))
        if n < size or not fitted.complete.any():
            return True
        if not history.n_warm or n - history.n_warm >= size:
            return False
        # What earlier studies never varied, the surrogate takes to be without effect: a
        # component that is new has to be tried before it can be judged.
        tried = (history.arrays().X[:, : joint.n_mixture] > 0.0).sum(axis=0)
        return bool(tried[joint.free].min(initial=n) < min(TRIED, size))

    def _doubtful_best(
        self, fit: Fit, running: FloatArray, rng: np.random.Generator
    ) -> FloatArray | None:
        """Row (d,) of the best trial if its score looks like luck, else None."""
        trials = fit.trials
        merit = self._merit(fit, finite_scores(trials.V), rng)
        best = int(np.argmax(observed_merit(merit, trials)))
        row = trials.X[best]
        mean = fit.predict(row[None]).mean
        expected, noisy = self._merit(fit, np.concatenate([mean, mean + fit.noise]), rng)
        known = np.concatenate([trials.X, running])
        times = int((nearest_distance(known, row[None]) < SAME).sum())
        is_doubtful = merit[best] > noisy > expected and times < EVALUATIONS
        return row if is_doubtful else None

    def _paper_row(
        self, number: int, state: SpaceState, joint: JointSpace, rng: np.random.Generator
    ) -> FloatArray:
        """Next row (d,) of the published schedule (DeMix, section 3.3, and its released code)."""
        start, size = iteration_of(number, self._schedule_sizes)
        trials = state.history.arrays().before(start)
        if start == 0 or len(trials.X) < 1:
            return joint.sample_one(rng)
        key = (start, len(trials.X))
        if key not in state.paper_choices:
            seed = self._derived_seed(start, "paper")
            fit = Fit(self._surrogate, state.history.joint, state.history.targets, trials, seed)
            best = paper_best(fit, self._scalar_composite(), self._pool_size, max(PAPER_TOP, size))
            order = np.random.default_rng([seed, 1]).permutation(len(best))[:size]
            state.paper_choices = {key: best[order]}
        chosen = state.paper_choices[key]
        if number - start < len(chosen):
            return joint.project(chosen[number - start])
        return joint.sample_one(rng)

    def _fit(self, state: SpaceState) -> Fit:
        """The current fit; a new one only when enough trials have come since the last."""
        size = fit_size(len(state.history))
        if state.fit is None or state.fit.n_trials != size:
            trials = state.history.arrays().first(size)
            seed = self._derived_seed(size, "fit")
            joint, targets = state.history.joint, state.history.targets
            state.fit = Fit(self._surrogate, joint, targets, trials, seed)
            state.fit.grow_pool(self._scalar_composite())
            state.tell_of_constant_scores(state.fit)
        return state.fit

    def _merit(self, fit: Fit, scores: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Merit (n,) of optimistic objective scores (n, m)."""
        if self._composite == "pareto":
            ranks = np.stack(
                [
                    Composite("rank", fit.reference[:, [j]])(scores[:, [j]])
                    for j in range(scores.shape[1])
                ],
                axis=1,
            )
            return tchebycheff(ranks, pareto_weights(scores.shape[1], rng))
        return Composite(self._composite, fit.reference)(scores)

    def _scalar_composite(self) -> str | Sequence[float]:
        return "rank" if self._composite == "pareto" else self._composite

    # Randomness ------------------------------------------------------------------------------

    def _derived_seed(self, number: int, purpose: str) -> int:
        if self._entropy is None:
            self._entropy = int(self._rng.rng.randint(2**31 - 1))
        words = [self._entropy, number, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def _generator(self, number: int, purpose: str) -> np.random.Generator:
        """A stream of its own for each trial and purpose."""
        return np.random.default_rng(self._derived_seed(number, purpose))

    # State -----------------------------------------------------------------------------------

    def fit_of(self, study: Study) -> Fit | None:
        """The fit that the last proposal came from; ``None`` if it was drawn without one."""
        with self._lock:
            return self._state_of(study).fit

    def _state_of(self, study: Study) -> StudyState:
        key = identity_of(study)
        if key not in self._states:
            self._states = {
                key: StudyState(study, self._warm_start)
            }  # one study at a time: memory stays flat
        return self._states[key]

    def _warn_once(self, study: Study, param_name: str) -> None:
        with self._lock:
            state = self._state_of(study)
            complete = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            # Before the first trials finish nobody can know which parameters are static.
            if param_name in state.warned or len(complete) < max(1, self._n_startup_trials):
                return
            state.warned.add(param_name)
        name = type(self._independent_sampler).__name__
        warnings.warn(
            f"The parameter {param_name!r} is not in every finished trial with the same range, so "
            f"it is sampled by {name} instead of DemixSampler. Pass "
            "warn_independent_sampling=False to silence this.",
            stacklevel=2,
        )


def _rows_of_running(
    trials: Sequence[FrozenTrial], own_number: int, joint: JointSpace
) -> FloatArray:
    """Rows (r, d) that other workers are evaluating."""
    rows = []
    for trial in trials:
        if trial.state != TrialState.RUNNING or trial.number == own_number:
            continue
        proposal = trial.system_attrs.get(PROPOSAL_ATTR)
        row = joint.encode_params(proposal) if isinstance(proposal, dict) else None
        if row is not None:
            rows.append(row)
    return np.stack(rows) if rows else np.empty((0, joint.n_columns))


def _fixed_by_wrapper(study: Study) -> dict[str, Any]:
    """Parameters that ``PartialFixedSampler`` holds fixed: it does not tell its base sampler."""
    fixed: dict[str, Any] = {}
    sampler = study.sampler
    while isinstance(sampler, PartialFixedSampler):
        fixed.update(sampler._fixed_params)
        sampler = sampler._base_sampler
    return fixed


def _fits(params: Mapping[str, Any], search_space: Mapping[str, BaseDistribution]) -> bool:
    """Whether stored parameters cover a search space and lie inside it."""
    return all(
        name in params and distribution._contains(distribution.to_internal_repr(params[name]))
        for name, distribution in search_space.items()
    )


def _native(value: Any, distribution: BaseDistribution) -> Any:
    """The value as a native type inside its distribution: Optuna silently redraws others."""
    if isinstance(value, (float, np.floating)):
        low = getattr(distribution, "low", -np.inf)
        high = getattr(distribution, "high", np.inf)
        return float(min(max(float(value), low), high))
    return value.item() if isinstance(value, np.generic) else value
