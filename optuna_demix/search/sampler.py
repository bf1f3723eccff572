"""``DemixSampler``: mixtures proposed by a LightGBM surrogate, as an Optuna sampler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.trial import TrialState

from optuna_demix.attributes import PROPOSAL_ATTR
from optuna_demix.errors import ConstraintError
from optuna_demix.search.options import SearchOptions
from optuna_demix.search.proposals.continuous import ContinuousProposer
from optuna_demix.search.proposals.demix import POOL, SIZES, DemixProposer
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.proposals.state import SpaceState, StudyState, identity_of
from optuna_demix.search.proposals.streams import Streams
from optuna_demix.search.rows.taken import taken_rows
from optuna_demix.search.spaces import as_spaces

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.proposals.state import SpaceState
    from optuna_demix.search.rows.prior_mean import ScoreOfMixtures

_MOVES = 4  # proposals of one trial, where other workers keep choosing the same


class DemixSampler(BaseSampler):
    """Sampler for data mixtures: constrained weights on the simplex from a LightGBM surrogate.

    The first trial is the prior mixture, and the weights of every trial lie on the simplex and
    within all constraints of the space. Randomness comes from ``(seed, trial.number)``: workers
    that share a study and a seed never draw the same point, and a resumed study goes on with the
    same sequence. All state is rebuilt from the storage.

    Parameters beside the mixture join the surrogate where the search space is static; dynamic
    ones go to ``independent_sampler``. Constraints set by ``Trial.set_constraint`` are learned
    like scores: mixtures that the surrogate expects to break one come last.

    Failed trials are evidence as well: a mixture counts as much as it is likely to succeed. The
    same holds for trials that are pruned before they report anything. Those that a pruner stopped
    count with the score that they would have had in the end, as far as their blocks of items or
    their last report tell. Only a trial that is repeated, because its worker was lost or stopped,
    says nothing.

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
        n_startup_trials: Finished trials before the surrogate is used; with 24 components or
            more they lie half way to the prior. Unused by ``schedule="demix"``.
        surrogate: Kind of :class:`~optuna_demix.surrogate.Surrogate`; default ``"auto"``, and
            the published ``"lightgbm"`` with ``schedule="demix"``.
        schedule: ``"continuous"`` refits as trials finish. ``"demix"`` works in iterations: the
            first samples the prior, each later one draws at random among the best of a large
            pool (DeMix, section 3.3).
        composite: Merit of several objectives: ``"rank"`` (mean percentile rank), ``"mean"``,
            weights by objective, or ``"pareto"`` (another random trade-off for each trial).
        independent_sampler: Sampler of parameters outside the static search space; default
            :class:`optuna.samplers.TPESampler`.
        warn_independent_sampling: Warn when a parameter of the static search space has to be
            drawn by ``independent_sampler``.
        exploration: Size of the bonus on the surrogate's standard deviation.
        min_distance: Smallest total variation between a proposal and any other trial, whatever
            its state.
        kl: Merit that is given up for each nat of Kullback-Leibler divergence between the
            mixture and its prior: with 0.1, a mixture at 1 nat must beat a further tenth of all
            random ones. Give ``recommend`` the same.
        reevaluate: For noisy scores: evaluate the best trial's mixture again, up to three times
            in all, while its score exceeds its prediction by more than the noise. Such a trial
            repeats an earlier one exactly, whatever ``min_distance``.
        warm_start: Earlier studies whose trials are learned from as well. Components they did
            not have count as weight 0.
        warm_map: What components of these studies became, ``{old: {new: share}}``: renamed
            (``{"web": {"cc": 1}}``), split, merged, or removed (``{}``); others stay as they are.
            A trial of the same mixture under another name is learned from like any other. One of
            a mixture that is only like it, as where a component was split, tells the surrogate
            what to start from, as far as held-out errors of new trials confirm it: no number of
            them outvotes new trials. For one mixture and ``schedule="continuous"``; with a
            ``prior_mean``, trials of the second kind are left aside.
        prior_mean: A cheap prediction that the surrogate starts from: a function of merge weights
            (n, K), in the order of the space's components, that returns scores (n, m) like the
            objective's values, or, if it has an attribute ``benchmarks``, a column for each of
            these (higher is better; those it does not name have no prior mean). NaN is no
            prediction; a score with NaN in a finished trial does without. For each score held-out
            errors decide how far it is used, see :class:`~optuna_demix.surrogate.Surrogate`. Of
            the startup trials every other one is the optimum of the prior mean, or lies where it
            predicts good scores. It is called for thousands of mixtures at a time, and must be
            picklable where the sampler has to be. For one mixture and ``schedule="continuous"``:

            .. code-block:: python

                def guess(W):  # (n, K): linear between what each component scores alone
                    return W @ np.array([[0.41], [0.36], [0.28]])


                sampler = DemixSampler(space, prior_mean=guess)
        schedule_sizes: Trials of each iteration of ``schedule="demix"``; the last one repeats.
        pool_size: Candidates ranked in each iteration of ``schedule="demix"``.

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
        schedule: Literal["continuous", "demix"] = "continuous",
        composite: str | Sequence[float] = "rank",
        independent_sampler: BaseSampler | None = None,
        warn_independent_sampling: bool = True,
        exploration: float = 1.0,
        min_distance: float = 1e-3,
        kl: float = 0.0,
        reevaluate: bool = False,
        warm_start: Sequence[Study] = (),
        warm_map: Mapping[str, Mapping[str, float]] | None = None,
        prior_mean: ScoreOfMixtures | None = None,
        schedule_sizes: Sequence[int] = SIZES,
        pool_size: int = POOL,
    ) -> None:
        self._spaces = as_spaces(space)
        self.options = SearchOptions(
            surrogate=surrogate,
            composite=composite,
            schedule=schedule,
            kl=kl,
            seed=seed,
            warm_start=warm_start,
            warm_map=warm_map,
            prior_mean=prior_mean,
        )
        self.options.check_spaces(self._spaces)
        self._streams = Streams(seed)
        self._continuous = ContinuousProposer(
            self.options,
            self._streams,
            n_startup_trials=n_startup_trials,
            exploration=exploration,
            min_distance=min_distance,
            reevaluate=reevaluate,
        )
        self._demix = DemixProposer(
            self.options, self._streams, sizes=schedule_sizes, pool_size=pool_size
        )
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._owns_independent_sampler = independent_sampler is None
        self._warn_independent_sampling = warn_independent_sampling
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

    @property
    def spaces(self) -> tuple[MixtureSpace, ...]:
        """The mixtures it searches."""
        return self._spaces

    def reseed_rng(self) -> None:
        """Draw new randomness where no seed was given, and in the independent sampler.

        ``study.optimize(n_jobs=…)`` calls this for every trial. With a seed nothing is drawn
        again: trials that run side by side have streams of their own.
        """
        self._streams.reseed()
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
            taken = self._read(study, trial, state)
            for _ in range(_MOVES):
                params = self._propose(study, trial, state, taken)
                params.update({n: _native(params[n], d) for n, d in search_space.items()})
                study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL_ATTR, params)
                if self.options.schedule == "demix":
                    break
                # Other workers may have chosen the same at the same moment. All write before they
                # read again, so that of any two at least one sees the other, finished or not.
                before, taken = taken, self._read(study, trial, state)
                row = state.history.joint.encode_params(params)
                if row is None or not self._continuous.is_crowded(row, before, taken):
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
                weights = space.sample(1, self._streams.generator(trial.number, "independent"))[0]
                value = float(weights[space.param_names.index(param_name)])
                low, high = param_distribution.low, param_distribution.high  # type: ignore[attr-defined]
                return min(max(value, low), high)
        if self._warn_independent_sampling:
            self._warn_once(study, param_name)
        sampler = self._independent_sampler
        if self._owns_independent_sampler and self._streams.is_seeded:
            # A stream of its own for every trial: workers that share a seed must not repeat
            # each other here either.
            draw = self._streams.generator(trial.number, param_name).integers(2**31)
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

    # Proposals -------------------------------------------------------------------------------

    def _read(self, study: Study, trial: FrozenTrial, state: SpaceState) -> FloatArray:
        """Take in what other trials have come to; rows (t, d) of all of them."""
        trials = study._get_trials(deepcopy=False, use_cache=False)
        state.history.update(trials)
        state.tell_of_trouble(trials)
        return taken_rows(state.history, trials, trial.number)

    def _propose(
        self, study: Study, trial: FrozenTrial, state: SpaceState, taken: FloatArray
    ) -> dict[str, Any]:
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
        rng = self._streams.generator(trial.number, "proposal")
        if self.options.schedule == "demix":
            row = self._demix.propose(trial.number, state, joint, rng)
        else:
            row = self._continuous.propose(
                trial.number, state, joint, taken, rng, is_conditional=bool(fixed)
            )
        row = joint.impose(row[None], fixed)[0]
        return joint.decode(row)

    # State -----------------------------------------------------------------------------------

    def fit_of(self, study: Study) -> Fit | None:
        """The fit that the last proposal came from; ``None`` if it was drawn without one."""
        with self._lock:
            return self._state_of(study).fit

    def _state_of(self, study: Study) -> StudyState:
        key = identity_of(study)
        if key not in self._states:
            self.options.check_objectives(len(study.directions))
            self._states = {
                key: StudyState(study, self.options)
            }  # one study at a time: memory stays flat
        return self._states[key]

    def _warn_once(self, study: Study, param_name: str) -> None:
        with self._lock:
            state = self._state_of(study)
            complete = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            # Before the first trials finish nobody can know which parameters are static.
            if param_name in state.warned or len(complete) < max(
                1, self._continuous.n_startup_trials
            ):
                return
            state.warned.add(param_name)
        name = type(self._independent_sampler).__name__
        warnings.warn(
            f"The parameter {param_name!r} is not in every finished trial with the same range, so "
            f"it is sampled by {name} instead of DemixSampler. Pass "
            "warn_independent_sampling=False to silence this.",
            stacklevel=2,
        )


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
