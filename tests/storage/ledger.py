"""What was done to a study and what has become of it, for the summary of the fault tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState

from optuna_demix.attributes import FAILURE_ATTR
from tests.faults import PROPERTY


class Ledger:
    """Faults injected into one study, and the trials that were finished before each.

    Args:
        record: pytest's ``record_property``: the summary is made of what it is given.
        workers: How many workers the study has at a time.
    """

    def __init__(self, record: Callable[[str, object], None], workers: int) -> None:
        self._record = record
        self._workers = workers
        self._faults: dict[str, int] = {}
        self._before: dict[int, Any] = {}

    def fault(self, kind: str, study: optuna.Study) -> None:
        """Note a fault that is about to happen, and what is finished by then."""
        self._faults[kind] = self._faults.get(kind, 0) + 1
        self._before |= _finished(study)

    def settle(self, study: optuna.Study, n_trials: int) -> None:
        """Record what the faults have left; nothing may be lost, and nothing still running."""
        after = _finished(study)
        trials = study.get_trials(deepcopy=False)
        changed = sum(after.get(number) != trial for number, trial in self._before.items())
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        summary = {
            "faults": self._faults,
            "workers": self._workers,
            "trials": len(after),
            "repeated": sum(map(_was_interrupted, trials)),
            "lost": max(0, n_trials - len(after)) + changed,
            "running": running,
        }
        self._record(PROPERTY, summary)
        assert summary["lost"] == summary["running"] == 0, summary


def _was_interrupted(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a fault cost a trial; one trial too many is nobody's fault."""
    reason = str(trial.user_attrs.get(FAILURE_ATTR, ""))
    return trial.state == TrialState.FAIL and not reason.startswith("surplus")


def _finished(study: optuna.Study) -> dict[int, Any]:
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    return {trial.number: (trial.params, trial.values, trial.user_attrs) for trial in trials}
