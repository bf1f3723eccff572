"""Where trials stand that a proposal must keep away from."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.attributes import PROPOSAL_ATTR

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.history import History
    from optuna_demix.search.rows.joint_space import JointSpace


def taken_rows(history: History, trials: Sequence[FrozenTrial], own_number: int) -> FloatArray:
    """Rows (t, d) of all other trials, whatever their state, and of earlier studies.

    Args:
        history: The finished trials.
        trials: All trials.
        own_number: The trial that is proposed.
    """
    rows = []
    for trial in trials:
        if not trial.state.is_finished() and trial.number != own_number:
            row = _expected(trial, history.joint)
            if row is not None:
                rows.append(row)
    return np.concatenate([history.taken, np.stack(rows)]) if rows else history.taken


def _expected(trial: FrozenTrial, joint: JointSpace) -> FloatArray | None:
    """Row (d,) that a running or waiting trial has or will have, if that is known."""
    proposal = trial.system_attrs.get(PROPOSAL_ATTR)
    row = joint.encode_params(proposal) if isinstance(proposal, dict) else None
    if row is not None:
        return row
    fixed = trial.system_attrs.get("fixed_params")
    if fixed:
        trial = copy(trial)
        trial.params = {**fixed, **trial.params}
    try:
        return joint.encode(trial)
    except (TypeError, ValueError):
        return None  # parameters that are no numbers: whoever evaluates it will say so
