"""The finished trials of a study as arrays: what the surrogate learns from.

Complete trials, and of the pruned ones those that were raced: they know how they did on the blocks
of items they saw.

Trials are read once, in one pass, and only new ones afterwards; nothing is kept that cannot be
read again from the storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from optuna_demix._joint_space import JointSpace

    FloatArray = NDArray[np.float64]

SCORE_PREFIX = "score:"
"""Prefix of the user attributes of a trial that hold one benchmark's score each."""

BLOCKS_ATTR = "demix:blocks"
"""User attribute of a raced trial: of every benchmark its score on each block of items."""

OBJECTIVES_ATTR = "demix:objectives"
"""User attribute of a study: for each objective the benchmarks it averages, with weights."""


class Row(NamedTuple):
    """One finished trial. One that was pruned has blocks, and NaN as scores and values."""

    number: int
    x: FloatArray  # (d,)
    scores: FloatArray  # (b,)
    values: FloatArray  # (m,)
    constraints: Mapping[str, float]
    blocks: FloatArray | None = None  # (b, l): scores on each of the first l blocks of items


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

    def read_blocks(self, trial: FrozenTrial) -> FloatArray | None:
        """Scores (b, l) on the first l blocks of items; ``None`` if it was not raced."""
        written = trial.user_attrs.get(BLOCKS_ATTR)
        if not self.benchmarks or not isinstance(written, dict):
            return None
        try:
            blocks = np.array([written[name] for name in self.benchmarks], dtype=float)
        except (KeyError, TypeError, ValueError):
            return None  # of other benchmarks
        return blocks if blocks.ndim == 2 and np.isfinite(blocks).all() else None

    def values(self, trial: FrozenTrial) -> FloatArray:
        """Objective values (m,) of a finished trial, higher is better."""
        return np.asarray(trial.values, dtype=float) * self.signs


class Arrays(NamedTuple):
    """Finished trials by number."""

    numbers: NDArray[np.int64]  # (n,); negative: trials of another study
    X: FloatArray  # rows (n, d)
    Y: FloatArray  # regressed scores (n, b), higher is better, NaN where one is missing
    V: FloatArray  # objective values (n, m), higher is better
    C: FloatArray  # constraint values (n, c), feasible at or below 0, NaN where unknown
    B: FloatArray  # scores of raced trials on blocks of items (n, b, l), NaN where not scored
    complete: NDArray[np.bool_]  # (n,); False: pruned, with NaN in Y and V, or estimates there

    def take(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Arrays:
        """Some of the trials, by slice, index or mask."""
        numbers, X, Y, V, C, B, complete = self
        return Arrays(numbers[rows], X[rows], Y[rows], V[rows], C[rows], B[rows], complete[rows])

    def before(self, number: int) -> Arrays:
        """The trials with smaller numbers."""
        end = int(np.searchsorted(self.numbers, number))
        return self.first(end)

    def first(self, n: int) -> Arrays:
        """The first n trials."""
        return self.take(slice(n))


class History:
    """Finished trials as arrays, grown as trials come.

    Args:
        joint: The parameters of a row.
        targets: What is regressed.
        warm: Rows of earlier studies: they come before all trials.
    """

    def __init__(self, joint: JointSpace, targets: Targets, warm: Sequence[Row] = ()) -> None:
        self.joint = joint
        self.targets = targets
        self.n_warm = len(warm)
        self.constraints: tuple[str, ...] = ()
        self.passed_over: list[int] = []
        self.outside: list[int] = []
        self.infinite: list[int] = []
        self._open = 0  # all trials before this position of the list are finished and taken in
        self._seen: set[int] = set()
        self._arrays = self._stack([], 0)
        self._add([row._replace(number=i - len(warm)) for i, row in enumerate(warm)])

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in trials of one study, sorted by number; each is looked at once when finished.

        Trials that lack a part of the mixture go to ``passed_over``; those outside the
        constraints to ``outside`` and those with infinite scores to ``infinite``, though they
        are learned from.
        """
        new = []
        for position in range(self._open, len(trials)):
            trial = trials[position]
            if not trial.state.is_finished():
                continue
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                row = self._read(trial)
                new += [] if row is None else [row]
            if position == self._open:
                self._open += 1
        self._add(new)

    def __len__(self) -> int:
        return len(self._arrays.numbers)

    def arrays(self) -> Arrays:
        """All rows by trial number. The arrays are shared: do not write to them."""
        return self._arrays

    def _read(self, trial: FrozenTrial) -> Row | None:
        if trial.state.name == "PRUNED":
            return self._read_pruned(trial)
        if trial.state.name != "COMPLETE":
            return None
        row = self.joint.encode(trial)
        scores = self.targets.read(trial)
        if row is None or scores is None:
            self.passed_over.append(trial.number)
            return None
        values = self.targets.values(trial)
        if not self.joint.contains(row):
            self.outside.append(trial.number)
        if np.isinf(scores).any() or np.isinf(values).any():
            self.infinite.append(trial.number)
        blocks = self.targets.read_blocks(trial)
        return Row(trial.number, row, scores, values, trial.constraints, blocks)

    def _read_pruned(self, trial: FrozenTrial) -> Row | None:
        """A pruned trial, if it was raced: its scores can be estimated."""
        blocks = self.targets.read_blocks(trial)
        row = None if blocks is None else self.joint.encode(trial)
        if row is None:
            return None
        if not self.joint.contains(row):
            self.outside.append(trial.number)
        b, m = self.targets.mixing.shape
        unknown = np.full(b, np.nan), np.full(m, np.nan)
        return Row(trial.number, row, *unknown, trial.constraints, blocks)

    def _add(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        keys = set(self.constraints).union(*(row.constraints for row in rows))
        if len(keys) > len(self.constraints):
            known = tuple(sorted(keys))
            wider = np.full((len(self), len(known)), np.nan)
            wider[:, [known.index(key) for key in self.constraints]] = self._arrays.C
            self.constraints, self._arrays = known, self._arrays._replace(C=wider)
        B = self._arrays.B
        n_blocks = max(0 if row.blocks is None else row.blocks.shape[1] for row in rows)
        if n_blocks > B.shape[2]:
            more = (0, n_blocks - B.shape[2])
            B = np.pad(B, ((0, 0), (0, 0), more), constant_values=np.nan)
            self._arrays = self._arrays._replace(B=B)
        new = self._stack(rows, B.shape[2])
        joined = Arrays(*(np.concatenate(pair) for pair in zip(self._arrays, new, strict=True)))
        if np.any(np.diff(joined.numbers[max(len(self) - 1, 0) :]) < 0):
            order = np.argsort(joined.numbers, kind="stable")  # workers finish out of order
            joined = joined.take(order)
        self._arrays = joined

    def _stack(self, rows: Sequence[Row], n_blocks: int) -> Arrays:
        n = len(rows)
        b, m = self.targets.mixing.shape
        C = np.array([[row.constraints.get(k, np.nan) for k in self.constraints] for row in rows])
        B = np.full((n, b, n_blocks), np.nan)
        for i, row in enumerate(rows):
            if row.blocks is not None:
                B[i, :, : row.blocks.shape[1]] = row.blocks
        return Arrays(
            np.array([row.number for row in rows], dtype=np.int64),
            np.array([row.x for row in rows], dtype=float).reshape(n, self.joint.n_columns),
            np.array([row.scores for row in rows], dtype=float).reshape(n, b),
            np.array([row.values for row in rows], dtype=float).reshape(n, m),
            C.astype(float).reshape(n, len(self.constraints)),
            B,
            np.array([not np.isnan(row.values).any() for row in rows], dtype=bool),
        )


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
