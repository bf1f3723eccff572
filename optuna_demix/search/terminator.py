"""``DemixTerminator``: stop a study when its next trials are not worth their noise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from optuna.terminator import BaseTerminator

from optuna_demix.errors import ConfigError
from optuna_demix.search._confidence import rank_mixtures
from optuna_demix.search.options import SearchOptions
from optuna_demix.search.own_sampler import options_of, spaces_of
from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.proposals.convergence import converge, least_trials
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.proposals.state import SpaceState, StudyState, fit_size, identity_of
from optuna_demix.search.spaces import as_spaces

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix.mixture import MixtureSpace

_logger = logging.getLogger(__name__)
_AGAIN = 2  # judgements in a row that must agree: one fit may be too sure of itself


class DemixTerminator(BaseTerminator):
    """Stops a study when the expected gain over the incumbent is below the noise of one trial.

    A surrogate is fitted to the finished trials, over the mixtures and all static parameters
    beside them. The incumbent is the candidate with the best predicted composite, the one that
    ``recommend`` starts from; the expected gain is the largest expected improvement over it of
    any candidate, and the noise is the part of a trial's score that the surrogate does not
    explain. Fits are made at the numbers of trials at which the sampler makes its own, and two in
    a row must agree. A study whose predictions hardly rank mixtures goes on, as ``recommend``
    does not call it converged.

    Usable as a callback of ``study.optimize``, and wherever Optuna takes a
    ``optuna.terminator.BaseTerminator``.

    Example:
        .. code-block:: python

            study.optimize(objective, n_trials=500, callbacks=[DemixTerminator()])

    Args:
        space: The mixture, or several mixtures; ``None`` for those of the study's own
            ``DemixSampler``.
        min_n_trials: Finished trials of the study before the first judgement; default 4 K + 8 for
            K components and parameters.
        options: How the study is searched; ``None`` for what its own sampler says. A composite
            ``"pareto"`` is judged by mean percentile rank.

    Raises:
        ConfigError: If an argument is out of range or of another type; from
            :meth:`should_terminate`, if the mixture is not given and not known to the sampler.
    """

    def __init__(
        self,
        space: MixtureSpace | Sequence[MixtureSpace] | None = None,
        *,
        min_n_trials: int | None = None,
        options: SearchOptions | None = None,
    ) -> None:
        is_count = isinstance(min_n_trials, Integral) and min_n_trials >= 1
        if min_n_trials is not None and not is_count:
            raise ConfigError(
                f"min_n_trials must be a positive whole number, got {min_n_trials!r}"
            )
        if options is not None and not isinstance(options, SearchOptions):
            raise ConfigError(f"options must be SearchOptions, got {options!r}")
        self._spaces = None if space is None else as_spaces(space)
        self._min_n_trials = min_n_trials
        self._options = options
        self._judges: dict[tuple[int, int], _Judge] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_judges": {}}  # rebuilt from the storage

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def should_terminate(self, study: Study) -> bool:
        """Whether the last two fits rank mixtures and expect no gain that exceeds the noise."""
        with self._lock:
            spaces = spaces_of(study, self._spaces)
            key = identity_of(study)
            if key not in self._judges:  # one study at a time: memory stays flat
                options = options_of(study, self._options)
                self._judges = {key: _Judge(study, spaces, options)}
            return self._judges[key].has_converged(self._min_n_trials)

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Stop ``study.optimize`` when the study has converged."""
        if self.should_terminate(study):
            _logger.info("The expected gain is below the noise of one trial: stop.")
            study.stop()


class _Judge:
    """What the terminator knows of one study, kept from trial to trial."""

    def __init__(
        self, study: Study, spaces: Sequence[MixtureSpace], options: SearchOptions
    ) -> None:
        options.check_spaces(spaces)
        self._spaces = spaces
        self._options = options
        self._state = StudyState(study, options)
        self._known: SpaceState | None = None
        self._judged: dict[int, bool] = {}

    def has_converged(self, min_n_trials: int | None) -> bool:
        """Whether the last two fits say so; not if there are too few trials for two."""
        known, _ = self._state.current(self._spaces)
        if known is not self._known:  # another search space
            self._known, self._judged = known, {}
        history = known.history
        least = min_n_trials or least_trials(history.joint.n_mixture + len(history.joint.others))
        trials = history.arrays()
        size = fit_size(len(history))
        sizes: list[int] = []
        while size - history.n_warm >= least and len(sizes) < _AGAIN:
            if not trials.first(size).complete[history.n_warm :].any():
                break
            sizes.append(size)
            size = fit_size(size - 1)
        for size in sizes:
            if size not in self._judged:
                self._judged[size] = self._judge(known, size)
        self._judged = {size: self._judged[size] for size in sizes}
        return len(sizes) == _AGAIN and all(self._judged.values())

    def _judge(self, known: SpaceState, size: int) -> bool:
        history, options = known.history, self._options
        trials = history.arrays().first(size)
        fit = Fit(
            options.kind,
            history.joint,
            history.targets,
            trials,
            options.seed or 0,
            prior_mean=known.prior,
        )
        fit.grow_pool(options.scalar_composite)
        merit = Composite(options.scalar_composite, fit.reference)
        outlook = converge(fit, merit, kl=options.kl)
        if outlook.expected_gain > outlook.noise:
            return False
        return rank_mixtures(fit.surrogate.validate().spearman)
