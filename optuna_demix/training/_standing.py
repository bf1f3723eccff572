"""What is still to be trained, as the files say, which other processes change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna_demix.training._job import Job, Run
from optuna_demix.training._ledger import Ledger
from optuna_demix.training._recipe import recipe_of
from optuna_demix.training._record import base_digest
from optuna_demix.training.data.corpus import Corpus


class Standing:
    """Which runs are to be trained, and with which recipes.

    Args:
        job: What all runs share.
        runs: The runs.
        corpora: Text of their datasets.
        retrain: Models to train again, as :func:`to_retrain` gives them.

    Attributes:
        base_is_new: Whether the base is one of the runs and still to be trained. What starts
            from it is compared without it until then, and again later.

    Raises:
        ConfigError: If a model was trained or begun with another recipe.
    """

    def __init__(
        self,
        job: Job,
        runs: Sequence[Run],
        corpora: Mapping[str, Corpus],
        retrain: Mapping[str, str | None],
    ) -> None:
        self._job, self._runs, self._corpora = job, runs, corpora
        self._ledger = Ledger(job, retrain)
        self._base = base_digest(job.config)
        self.base_is_new = False
        self.base_is_new = bool(self._pending([run for run in runs if run.is_base]))
        self.todo = self._pending(runs)

    @property
    def has_base(self) -> bool:
        """Whether there is a base, or will be."""
        return self.base_is_new or self._base is not None

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Records of the runs that were found done."""
        return self._ledger.records

    def recipe(self, run: Run) -> dict[str, Any]:
        """The recipe of a run."""
        base = None if self.base_is_new else self._base
        return recipe_of(self._job, run, self._corpora, base)

    def needs(self, run: Run) -> bool:
        """Whether a run is still to be trained, now.

        Raises:
            ConfigError: If it, or what starts from it, was trained with another recipe.
        """
        if self._pending([run]):
            return True
        if run.is_base and self.base_is_new:
            self.base_is_new = False
            self._base = base_digest(self._job.config)
            self._pending(self._runs)
        return False

    def _pending(self, runs: Sequence[Run]) -> list[Run]:
        return self._ledger.pending(runs, {run.name: self.recipe(run) for run in runs})
