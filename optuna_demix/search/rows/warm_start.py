"""Trials of earlier studies as rows of this one, also where components were added since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.attributes import SCORE_PREFIX
from optuna_demix.errors import StudyError
from optuna_demix.search.rows.history import Row, has_failed, repeated_numbers
from optuna_demix.search.rows.targets import Targets

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.rows.joint_space import JointSpace

_SUM_ERROR = 1e-6  # weights may miss the sum 1 by this much and still be a whole mixture


def warm_rows(
    study: Study, joint: JointSpace, targets: Targets, *, own: bool
) -> tuple[list[Row], int]:
    """Finished trials of an earlier study as rows, and how many could not be used.

    A component that the earlier study did not have gets weight 0. A trial that gave weight to a
    component this study does not have, or lacks a score or a parameter, cannot be used. Trials
    that failed are rows as well, as far as they can be.

    Args:
        study: The earlier study.
        joint: The parameters of a row.
        targets: What is regressed now.
        own: The earlier study is this very one: trials that fit as they are come by themselves.

    Raises:
        StudyError: If the studies have no scores in common.
    """
    old = Targets.of(study)
    if not targets.benchmarks and len(old.signs) != len(targets.signs):
        raise StudyError(
            f"warm_start: study {study.study_name!r} has {len(old.signs)} objectives and this one "
            f"{len(targets.signs)}; pass a study with the same objectives"
        )
    rows, unused = [], 0
    trials = study.get_trials(deepcopy=False)
    repeated = repeated_numbers(trials)
    for trial in trials:
        is_complete = trial.state.name == "COMPLETE"
        is_failure = has_failed(trial) and trial.number not in repeated
        if not (is_complete or is_failure) or (own and joint.encode(trial) is not None):
            continue
        x = _place(trial, joint)
        row = None if x is None else _row(trial, x, targets, old)
        if row is not None:
            rows.append(row)
        elif is_complete:
            unused += 1
    return rows, unused


def _place(trial: FrozenTrial, joint: JointSpace) -> FloatArray | None:
    """Row (d,) of the parameters of a trial, ``None`` if it lacks one."""
    mixtures = [_weights(trial, space) for space in joint.spaces]
    tail = joint.encode_others(trial.params)
    parts = [part for part in (*mixtures, tail) if part is not None]
    return np.concatenate(parts) if len(parts) > len(mixtures) else None


def _row(trial: FrozenTrial, x: FloatArray, targets: Targets, old: Targets) -> Row | None:
    if trial.state.name != "COMPLETE":
        b, m = targets.mixing.shape
        return Row(0, x, np.full(b, np.nan), np.full(m, np.nan), trial.constraints, failed=True)
    if targets.benchmarks:
        found = [trial.user_attrs.get(SCORE_PREFIX + name) for name in targets.benchmarks]
        if not all(isinstance(score, (int, float)) for score in found):
            return None
        scores = np.array(found, dtype=float)
        values = scores @ targets.mixing
    else:
        # Oriented by the earlier study's own directions: higher is better in both.
        scores = values = old.values(trial)
    return Row(0, x, scores, values, trial.constraints)


def _weights(trial: FrozenTrial, space: MixtureSpace) -> FloatArray | None:
    """Merge weights (K,) of a trial made for some of the components, None if that is not so."""
    written = trial.user_attrs.get(space.weights_key)
    named: Mapping[str, Any] = (
        written
        if isinstance(written, Mapping)
        else {
            component: trial.params[param]
            for component, param in zip(space.components, space.param_names, strict=True)
            if param in trial.params
        }
    )
    try:
        weights = np.array([float(named.get(c, 0.0)) for c in space.components])
    except (TypeError, ValueError):
        return None
    is_whole = abs(weights.sum() - 1.0) <= _SUM_ERROR and bool(np.all(weights >= -_SUM_ERROR))
    return np.maximum(weights, 0.0) / weights.sum() if is_whole else None
