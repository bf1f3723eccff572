"""Finished trials as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.search.rows.targets import Targets


class Row(NamedTuple):
    """One finished trial. One that was pruned has blocks, and NaN as scores and values."""

    number: int
    x: FloatArray  # (d,)
    scores: FloatArray  # (b,)
    values: FloatArray  # (m,)
    constraints: Mapping[str, float]
    blocks: FloatArray | None = None  # (b, l): scores on each of the first l blocks of items


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
