"""Why trials end as failed although nothing is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.attributes import FAILURE_ATTR

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RELEASED = "released: its worker was told to stop"
SURPLUS = "surplus: the study has its trials"
DIED = "its worker died"
SILENT = "no heartbeat of its worker for the grace period"

_NO_FAULT = frozenset((RELEASED, SURPLUS, DIED, SILENT))


def failed_by_itself(trial: FrozenTrial) -> bool:
    """Whether a failed trial failed in its evaluation: others are repeated, or were too many."""
    return trial.user_attrs.get(FAILURE_ATTR) not in _NO_FAULT
