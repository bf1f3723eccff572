"""``DemixTerminator``: stop a study when its next trials are not worth their noise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.terminator import BaseTerminator

from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.proposals.convergence import Outlook, converge, least_trials
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.proposals.state import fit_size
from optuna_demix.search.rows.history import History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets
from optuna_demix.surrogate import check_kind

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix.mixture import MixtureSpace

_logger = logging.getLogger(__name__)
_AGAIN = 2  # judgements in a row that must agree: one fit may be too sure of itself


class DemixTerminator(BaseTerminator):
    """Stops a study when the expected gain over the incumbent is below the noise of one trial.

    A surrogate is fitted to the finished trials. The incumbent is the mixture with the best
    predicted composite, the one that ``recommend`` starts from; the expected gain is the largest
    expected improvement over it of any candidate, and the noise is the part of a trial's score
    that the surrogate does not explain. Fits are made at the numbers of trials at which the
    sampler makes its own, and two in a row must agree.

    Usable as a callback of ``study.optimize``, and wherever Optuna takes a
    ``optuna.terminator.BaseTerminator``.

    Example:
        .. code-block:: python

            terminator = DemixTerminator(space)
            study.optimize(objective, n_trials=500, callbacks=[terminator])

    Args:
        space: The mixture.
        min_n_trials: Finished trials before the first judgement; default 4 K + 8 for K
            components.
        surrogate: Kind of :class:`~optuna_demix.surrogate.Surrogate`.
        composite: Merit of several objectives: ``"rank"``, ``"mean"`` or weights by objective.
        kl: As given to ``DemixSampler``.
        seed: Seed of the surrogate and its candidates.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        space: MixtureSpace,
        *,
        min_n_trials: int | None = None,
        surrogate: str = "auto",
        composite: str | Sequence[float] = "rank",
        kl: float = 0.0,
        seed: int = 0,
    ) -> None:
        if min_n_trials is not None and min_n_trials < 1:
            raise ValueError(f"min_n_trials must be positive, got {min_n_trials}")
        if kl < 0:
            raise ValueError(f"kl must not be negative, got {kl}")
        check_kind(surrogate)
        self._space = space
        self._min_n_trials = min_n_trials or least_trials(len(space))
        self._surrogate = surrogate
        self._composite = "rank" if composite == "pareto" else composite
        self._kl = kl
        self._seed = seed
        self._judged: dict[int, Outlook] = {}
        self._study_key: tuple[str, int] | None = None

    def should_terminate(self, study: Study) -> bool:
        """Whether the last two fits expect no gain that exceeds the noise."""
        key = (study.study_name, study._study_id)
        if key != self._study_key:
            self._study_key, self._judged = key, {}
        sizes = self._due(study)
        if len(sizes) < _AGAIN:
            return False
        return all(
            outlook.expected_gain <= outlook.noise
            for outlook in (self._judged[size] for size in sizes)
        )

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Stop ``study.optimize`` when the study has converged."""
        if self.should_terminate(study):
            _logger.info("The expected gain is below the noise of one trial: stop.")
            study.stop()

    def _due(self, study: Study) -> list[int]:
        """The last sizes at which fits are judged, judged."""
        joint, targets = JointSpace([self._space], {}), Targets.of(study)
        history = History(joint, targets)
        history.update(study._get_trials(deepcopy=False, use_cache=False))
        size = fit_size(len(history))
        sizes: list[int] = []
        known = history.arrays()
        while size >= self._min_n_trials and len(sizes) < _AGAIN:
            if not known.first(size).complete.any():
                break
            sizes.append(size)
            size = fit_size(size - 1)
        for size in reversed(sizes):
            if size not in self._judged:
                fit = Fit(self._surrogate, joint, targets, known.first(size), self._seed)
                fit.grow_pool(self._composite)
                merit = Composite(self._composite, fit.reference)
                self._judged[size] = converge(fit, merit, kl=self._kl)
        self._judged = {size: self._judged[size] for size in sizes}
        return sizes
