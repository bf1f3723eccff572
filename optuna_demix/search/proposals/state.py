"""What is known of one study while it is searched."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState

from optuna_demix.mixture import MixtureSpace
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.rows.evidence import Evidence
from optuna_demix.search.rows.history import History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets
from optuna_demix.search.rows.warm_map import WarmMap
from optuna_demix.search.rows.warm_start import Warm, warm_rows

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.rows.prior_mean import ScoreOfMixtures

_log = logging.getLogger(__name__)

_ALL_FAILED = 4  # finished trials without a score after which it is worth a warning


@dataclass
class SpaceState:
    """What is known of one study under one search space."""

    history: History
    names: frozenset[str]
    prior: ScoreOfMixtures | None = None  # what the surrogate starts from
    fit: Fit | None = None
    iteration: dict[tuple[int, int], FloatArray] = field(default_factory=dict)
    good: dict[JointSpace, FloatArray] = field(default_factory=dict)  # as a prior mean has it
    _told: set[str] = field(default_factory=set)

    def tell_of_trouble(self, trials: Sequence[FrozenTrial]) -> None:
        """Warn, once each, of trials that cannot be used as they are, and say what was done."""
        history = self.history
        if history.passed_over:
            self._warn(
                "passed over",
                f"{_trials(history.passed_over)} finished without a weight of every component "
                "or without a score, and cannot be learned from. If components were added since, "
                "start a new study with DemixSampler(space, warm_start=[study]).",
            )
        if history.outside:
            self._warn(
                "outside",
                f"{_trials(history.outside)} finished with weights outside the constraints of the "
                "space; they are learned from, and no proposal follows them outside.",
            )
        if history.infinite:
            self._warn(
                "infinite",
                f"{_trials(history.infinite)} finished with an infinite score; it counts as just "
                "beyond the worst or the best finite one.",
            )
        if not len(history) and len(trials) >= _ALL_FAILED:
            if all(trial.state.is_finished() for trial in trials[:_ALL_FAILED]):
                self._warn(
                    "no scores",
                    f"None of the {sum(t.state.is_finished() for t in trials)} finished trials "
                    "has a score to learn from (failed or pruned?); proposals are drawn without "
                    "a surrogate.",
                )

    def tell_of_constant_scores(self, fit: Fit) -> None:
        """Warn, once, if all scores are equal."""
        scores = fit.trials.Y[fit.trials.complete]
        if fit.n_trials > 2 and len(scores) and np.all(scores == scores[0]):
            self._warn(
                "constant",
                f"All scores of {fit.n_trials} trials are equal; proposals are drawn at random "
                "until they differ.",
            )

    def _warn(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(text, stacklevel=2)


class StudyState:
    """What is known of one study."""

    def __init__(self, study: Study, options: SearchOptions) -> None:
        self.search_space = IntersectionSearchSpace()
        self.warned: set[str] = set()
        self._varied: set[str] = set()
        self._study = study
        self._options = options
        self._warm_start = tuple(options.warm_start)
        self._targets = Targets.of(study)
        self._key: tuple[Any, ...] | None = None
        self._space_state: SpaceState | None = None

    @property
    def fit(self) -> Fit | None:
        """The current fit, if there is one."""
        return None if self._space_state is None else self._space_state.fit

    def _has_history(self) -> bool:
        if self._space_state is None:
            return False
        return len(self._space_state.history) > self._space_state.history.n_warm

    def current(self, spaces: Sequence[MixtureSpace]) -> tuple[SpaceState, dict[str, Any]]:
        """The state of all static parameters, with every trial that has finished.

        A parameter that has had one value only cannot be learned about: a surrogate would let it
        take any other value for nothing.

        Args:
            spaces: The mixtures.

        Returns:
            The state, and the values of the static parameters that have never varied.
        """
        weights = {name for space in spaces for name in space.param_names}
        static = self.search_space.calculate(self._study)
        trials = self._study._get_trials(deepcopy=False, use_cache=False)
        others, constants = {}, {}
        for name, distribution in static.items():
            if name in weights:
                continue
            values = self._values_of(name, trials)
            if name in self._varied or any(value != values[0] for value in values):
                self._varied.add(name)
                others[name] = distribution
            else:
                constants[name] = values[0]
        state = self.joint(spaces, others)
        state.history.update(trials)
        return state, constants

    def _values_of(self, name: str, trials: Sequence[FrozenTrial]) -> list[Any]:
        """Values of a parameter in the trials that are learned from."""
        if name in self._varied:
            return []
        earlier = (study._get_trials(deepcopy=False) for study in self._warm_start)
        return [
            trial.params[name]
            for some in (trials, *earlier)
            for trial in some
            if trial.state == TrialState.COMPLETE and name in trial.params
        ]

    def joint(
        self, spaces: Sequence[MixtureSpace], others: Mapping[str, BaseDistribution]
    ) -> SpaceState:
        """The state under a search space; history is read again when that has changed."""
        if not self._targets.benchmarks and not self._has_history():
            # The objective writes down its benchmarks with its first score.
            self._targets = Targets.of(self._study)
            if self._targets.benchmarks:
                self._space_state = None
        key = (len(spaces), *sorted((name, repr(d)) for name, d in others.items()))
        if self._space_state is None or self._key != key:
            ordered = dict(sorted(others.items()))
            joint = JointSpace(spaces, ordered)
            names = frozenset(joint.mixture_names | set(ordered))
            warm = self._warm(joint)
            history = History(joint, self._targets, warm.rows)
            self._space_state = SpaceState(history, names, self._prior(warm))
            self._key = key
        return self._space_state

    def _warm(self, joint: JointSpace) -> Warm:
        """What all earlier studies tell."""
        all_of_them = Warm()
        given = self._options.warm_map
        warm_map = None if given is None else WarmMap(given)
        for i, study in enumerate(self._warm_start):
            if any(_is_same(study, other) for other in self._warm_start[:i]):
                continue  # given twice
            own = _is_same(study, self._study)
            found = warm_rows(study, joint, self._targets, own=own, warm_map=warm_map)
            all_of_them.rows.extend(found.rows)
            all_of_them.alike.extend(found.alike)
            used = f"{len(found.rows)} are learned from"
            if warm_map is not None:
                used += f", and {len(found.alike)} more through warm_map"
                if found.alike and self._options.prior_mean is not None:
                    used += " are left aside, as prior_mean is given"
                _log.info("warm_start: of the trials of study %r, %s.", study.study_name, used)
            if found.unused:
                warnings.warn(
                    f"warm_start: {found.unused} finished trials of study {study.study_name!r} "
                    "cannot be used: they give weight to components that this study does not "
                    f"have, or lack a score or parameter; {used}.",
                    stacklevel=2,
                )
        return all_of_them

    def _prior(self, warm: Warm) -> ScoreOfMixtures | None:
        """The prior mean: the one that is given, or what mixtures like those of today scored."""
        if not warm.alike or self._options.prior_mean is not None:
            return self._options.prior_mean
        W, Y = (np.array(part) for part in zip(*warm.alike, strict=True))
        options = self._options
        return Evidence(W, Y, self._targets, kind=options.kind, seed=options.seed or 0)


def identity_of(study: Study) -> tuple[int, int]:
    """What tells a study from others within this process."""
    return id(study._storage), study._study_id


def _is_same(a: Study, b: Study) -> bool:
    """Whether two objects are the same study, however it was loaded.

    Storages do not tell whether they are the same one. Two studies of different storages may have
    both number and name in common, but no start of a trial.
    """
    if (a._study_id, a.study_name) != (b._study_id, b.study_name):
        return False
    if a._storage is b._storage:
        return True
    ours, theirs = (
        [trial.datetime_start for trial in study._get_trials(deepcopy=False)] for study in (a, b)
    )
    # A trial that waited when one was read may have started when the other was.
    both = [(x, y) for x, y in zip(ours, theirs, strict=False) if x and y]
    return bool(both) and all(x == y for x, y in both)


def _trials(numbers: Sequence[int]) -> str:
    """The trials by number, the first few of them."""
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"Trial {shown}" if len(numbers) == 1 else f"Trials {shown}"


def fit_size(n_trials: int) -> int:
    """Number of trials the current fit uses: every one at first, then each 16th part more."""
    if n_trials < 32:
        return n_trials
    size = 32
    while size + size // 16 <= n_trials:
        size += size // 16
    return size
