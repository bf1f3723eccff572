"""Trials of earlier studies as rows of this one, also where components were added since."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.attributes import SCORE_PREFIX
from optuna_demix.errors import StudyError
from optuna_demix.search.rows.history import Row, has_failed, repeated_numbers
from optuna_demix.search.rows.targets import Targets
from optuna_demix.search.rows.warm_map import Mapped, WarmMap, named_weights

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.rows.joint_space import JointSpace


@dataclass(frozen=True)
class Warm:
    """What earlier studies tell.

    Attributes:
        rows: Trials of mixtures of today.
        alike: Merge weights (K,) and what is regressed (b,) of trials of mixtures like these.
        unused: Number of finished trials that tell nothing.
    """

    rows: list[Row] = field(default_factory=list)
    alike: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    unused: int = 0


def warm_rows(
    study: Study,
    joint: JointSpace,
    targets: Targets,
    *,
    own: bool,
    warm_map: WarmMap | None = None,
) -> Warm:
    """Finished trials of an earlier study as rows of this one.

    A component that the earlier study did not have gets weight 0. A trial that gave weight to a
    component this study does not have, or lacks a score or a parameter, cannot be used. Trials
    that failed are rows as well, as far as they can be.

    Args:
        study: The earlier study.
        joint: The parameters of a row.
        targets: What is regressed now.
        own: The earlier study is this very one: trials that fit as they are come by themselves.
        warm_map: What its components became.

    Raises:
        StudyError: If the studies have no scores in common.
    """
    old = Targets.of(study)
    if not targets.benchmarks and len(old.signs) != len(targets.signs):
        raise StudyError(
            f"warm_start: study {study.study_name!r} has {len(old.signs)} objectives and this one "
            f"{len(targets.signs)}; pass a study with the same objectives"
        )
    found, unused = Warm(), 0
    trials = study.get_trials(deepcopy=False)
    repeated = repeated_numbers(trials)
    for trial in trials:
        is_complete = trial.state.name == "COMPLETE"
        is_failure = has_failed(trial) and trial.number not in repeated
        if not (is_complete or is_failure) or (own and joint.encode(trial) is not None):
            continue
        placed = [_weights(trial, space, warm_map) for space in joint.spaces]
        tail = joint.encode_others(trial.params)
        mixtures = [each.weights for each in placed if each is not None]
        row = None
        if len(mixtures) == len(placed) and tail is not None:
            row = _row(trial, np.concatenate([*mixtures, tail]), targets, old)
        if row is not None and all(each is not None and each.is_exact for each in placed):
            found.rows.append(row)
        elif row is not None and is_complete:
            found.alike.append((np.concatenate(mixtures), row.scores))
        elif is_complete:
            unused += 1
    return replace(found, unused=unused)


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


def _weights(trial: FrozenTrial, space: MixtureSpace, warm_map: WarmMap | None) -> Mapped | None:
    """Merge weights of a trial made for other components, None if they cannot be told."""
    names = dict.fromkeys((*space.components, *(() if warm_map is None else warm_map.names)))
    prefix = "" if space.name is None else f"{space.name}/"
    written = trial.user_attrs.get(space.weights_key)
    old = named_weights(written, trial.params, names, prefix)
    return None if old is None else (warm_map or WarmMap({})).place(old, space.components)
