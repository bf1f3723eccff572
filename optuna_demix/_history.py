"""The finished trials of a study as arrays: what the surrogate learns from.

Trials are read once, in one pass, and only new ones afterwards; nothing is kept that cannot be
read again from the storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._joint_space import JointSpace

    FloatArray = NDArray[np.float64]

SCORE_PREFIX = "score:"
"""Prefix of the user attributes of a trial that hold one benchmark's score each."""

OBJECTIVES_ATTR = "demix:objectives"
"""User attribute of a study: for each objective the benchmarks it averages, with weights."""


@dataclass(frozen=True)
class Targets:
    """What is regressed, and how objectives follow from it.

    Attributes:
        benchmarks: Names of the regressed benchmarks; empty: the study's values themselves.
        mixing: Matrix (b, m): objectives (n, m) = benchmarks (n, b) @ mixing.
        signs: +1 for a maximised objective, -1 for a minimised one, (m,). Benchmarks are
            oriented already, so that signs only apply to values.
    """

    benchmarks: tuple[str, ...]
    mixing: FloatArray
    signs: FloatArray

    @classmethod
    def of(cls, study: Study) -> Targets:
        """Read from a study: per benchmark where the objective wrote down how they mix."""
        from optuna.study import StudyDirection

        signs = np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions])
        plain = cls((), np.eye(len(signs)), signs)
        layout = study.user_attrs.get(OBJECTIVES_ATTR)
        if not isinstance(layout, list) or len(layout) != len(signs) or np.any(signs < 0):
            return plain
        try:
            names = tuple(sorted({str(name) for objective in layout for name in objective}))
            mixing = np.array(
                [[float(objective.get(name, 0.0)) for objective in layout] for name in names]
            )
        except (AttributeError, TypeError, ValueError):
            return plain  # not written by this package: learn from the values
        if not names or not np.all(np.isfinite(mixing)):
            return plain
        return cls(names, mixing, signs)

    def read(self, trial: FrozenTrial) -> FloatArray | None:
        """Regressed scores (b,) of a finished trial, higher is better; NaN where one is missing.

        ``None`` if there is nothing to learn from it.
        """
        if self.benchmarks:
            scores = [trial.user_attrs.get(SCORE_PREFIX + name) for name in self.benchmarks]
            if any(isinstance(score, (int, float)) for score in scores):
                return np.array([np.nan if s is None else float(s) for s in scores])
            return None
        if trial.values is None:
            return None
        return np.asarray(trial.values, dtype=float) * self.signs

    def values(self, trial: FrozenTrial) -> FloatArray:
        """Objective values (m,) of a finished trial, higher is better."""
        return np.asarray(trial.values, dtype=float) * self.signs


class History:
    """Finished trials as arrays, grown in place as trials come.

    Args:
        joint: The parameters of a row.
        targets: What is regressed.
    """

    def __init__(self, joint: JointSpace, targets: Targets) -> None:
        self.joint = joint
        self.targets = targets
        self._seen: set[int] = set()
        self._rows: dict[int, tuple[FloatArray, FloatArray, FloatArray]] = {}

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in trials; those seen before, unfinished or without a mixture are passed over."""
        for trial in trials:
            if trial.number in self._seen or not trial.state.is_finished():
                continue
            self._seen.add(trial.number)
            if trial.state.name != "COMPLETE":
                continue
            row = self.joint.encode(trial)
            scores = self.targets.read(trial)
            if row is not None and scores is not None:
                self._rows[trial.number] = (row, scores, self.targets.values(trial))

    def __len__(self) -> int:
        return len(self._rows)

    def arrays(self, *, before: int | None = None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Rows X (n, d), regressed scores (n, b) and objective values (n, m), by trial number.

        Args:
            before: Leave out trials with this number or a higher one.
        """
        numbers = self.numbers(before=before)
        if not numbers:
            return (
                np.empty((0, self.joint.n_columns)),
                np.empty((0, len(self.targets.mixing))),
                np.empty((0, len(self.targets.signs))),
            )
        X, Y, V = zip(*(self._rows[number] for number in numbers), strict=True)
        return np.stack(X), np.stack(Y), np.stack(V)

    def numbers(self, *, before: int | None = None) -> list[int]:
        """Numbers of the trials in the arrays, in order."""
        return sorted(n for n in self._rows if before is None or n < before)


def objective_layout(
    capabilities: Mapping[str, Sequence[str]], weights: Mapping[str, float] | None
) -> list[dict[str, float]]:
    """How objectives follow from benchmarks, as it is written to :data:`OBJECTIVES_ATTR`.

    Args:
        capabilities: Benchmarks of each capability; a capability is their mean.
        weights: Weights of the capabilities in one objective, or ``None`` for one objective
            each.
    """
    layouts: list[dict[str, Any]] = [
        {name: 1.0 / len(names) for name in names} for names in capabilities.values()
    ]
    if weights is None:
        return layouts
    return [
        {
            name: share * weights[capability]
            for capability, layout in zip(capabilities, layouts, strict=True)
            for name, share in layout.items()
        }
    ]
