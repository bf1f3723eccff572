"""Queue the mixture of a failed trial again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.attributes import FAILURE_ATTR, LEASE_ATTR, SCORE_PREFIX, WORKER_ATTR

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

MAX_RETRIES = 5  # of one mixture: then it may be the mixture that kills its workers


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Queue the mixture of a failed trial again, unless that has been done too often.

    What the first attempt left behind is not taken along. A trial that had no parameters yet
    leaves nothing to repeat.

    Args:
        study: The study.
        trial: The failed trial.
    """
    import copy
    import warnings

    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    from optuna_demix.attributes import PROPOSAL_ATTR

    if not trial.params and not {PROPOSAL_ATTR, "fixed_params"} & set(trial.system_attrs):
        return
    fresh = copy.deepcopy(trial)
    left = (WORKER_ATTR, FAILURE_ATTR)
    fresh.user_attrs = {
        name: value
        for name, value in fresh.user_attrs.items()
        if name not in left and not name.startswith(SCORE_PREFIX)
    }
    fresh.system_attrs.pop(LEASE_ATTR, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback(
            max_retry=MAX_RETRIES, inherit_intermediate_values=False
        )
    retry(study, fresh)
