"""Queue the mixture of a failed trial again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.attributes import (
    BLOCKS_ATTR,
    CHEAP_PREFIX,
    FAILURE_ATTR,
    ITEMS_PREFIX,
    LEASE_ATTR,
    PARTIAL_PREFIX,
    PREDICTED_PREFIX,
    PREDICTED_STD_PREFIX,
    PROPOSAL_ATTR,
    SCORE_PREFIX,
    WORKER_ATTR,
)

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

MAX_RETRIES = 5
"""Attempts at one mixture after the first: then it may be the mixture that kills its workers."""

_OF_ONE_ATTEMPT = (WORKER_ATTR, FAILURE_ATTR, BLOCKS_ATTR)
_PREFIXES_OF_ONE_ATTEMPT = (
    SCORE_PREFIX,
    CHEAP_PREFIX,
    PARTIAL_PREFIX,
    ITEMS_PREFIX,
    PREDICTED_PREFIX,
    PREDICTED_STD_PREFIX,
)


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Queue the mixture of a failed trial again, unless that has been done too often.

    What was written while the trial was evaluated is not taken along. A trial that had no
    parameters yet leaves nothing to repeat.

    Args:
        study: The study.
        trial: The failed trial.
    """
    import copy
    import warnings

    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    if not trial.params and not {PROPOSAL_ATTR, "fixed_params"} & set(trial.system_attrs):
        return
    fresh = copy.deepcopy(trial)
    fresh.user_attrs = {
        name: value
        for name, value in fresh.user_attrs.items()
        if name not in _OF_ONE_ATTEMPT and not name.startswith(_PREFIXES_OF_ONE_ATTEMPT)
    }
    fresh.system_attrs.pop(LEASE_ATTR, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback(
            max_retry=MAX_RETRIES, inherit_intermediate_values=False
        )
    retry(study, fresh)
