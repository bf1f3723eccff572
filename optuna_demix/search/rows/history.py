"""Finished trials as arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optuna_demix.attributes import CHEAP_PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.search.rows.targets import Targets

_NO_REPORTS: Mapping[int, float] = {}


class Row(NamedTuple):
    """One finished trial. One that was pruned or failed has NaN as scores and values.

    A trial that was screened out has the scores that it was given before.
    """

    number: int
    x: FloatArray  # (d,)
    scores: FloatArray  # (b,)
    values: FloatArray  # (m,)
    constraints: Mapping[str, float]
    blocks: FloatArray | None = None  # (b, l): scores on each of the first l blocks of items
    reports: Mapping[int, float] = _NO_REPORTS  # intermediate values by step, higher is better
    failed: bool = False
    cheap: FloatArray | None = None  # (b,): of screened benchmarks what stands for their score


class Failures(NamedTuple):
    """Failed trials by number."""

    numbers: NDArray[np.int64]  # (f,)
    X: FloatArray  # rows (f, d)

    def first(self, n: int) -> Failures:
        """The first n of them."""
        return Failures(self.numbers[:n], self.X[:n])

    def before(self, number: float) -> Failures:
        """Those with smaller numbers."""
        return self.first(int(np.searchsorted(self.numbers, number)))


class Arrays(NamedTuple):
    """Finished trials by number."""

    numbers: NDArray[np.int64]  # (n,); negative: trials of another study
    X: FloatArray  # rows (n, d)
    Y: FloatArray  # regressed scores (n, b), higher is better, NaN where one is missing
    V: FloatArray  # objective values (n, m), higher is better
    C: FloatArray  # constraint values (n, c), feasible at or below 0, NaN where unknown
    B: FloatArray  # scores of raced trials on blocks of items (n, b, l), NaN where not scored
    reports: NDArray[np.object_]  # intermediate values by step of trials that a pruner judged (n,)
    cheap: FloatArray  # what stands for the scores of screened benchmarks (n, b), else NaN
    complete: NDArray[np.bool_]  # (n,); False: pruned, with NaN in Y and V, or estimates there
    failures: Failures  # trials without a score; selecting rows leaves them as they are

    def take(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Arrays:
        """Some of the trials, by slice, index or mask."""
        return self._replace(**{name: getattr(self, name)[rows] for name in _BY_TRIAL})

    def join(self, others: Arrays) -> Arrays:
        """These trials, then the others; failed ones as here."""
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(others, name)])
            for name in _BY_TRIAL
        }
        return self._replace(**joined)

    def before(self, number: int) -> Arrays:
        """The trials with smaller numbers, failed ones too."""
        end = int(np.searchsorted(self.numbers, number))
        return self.take(slice(end))._replace(failures=self.failures.before(number))

    def first(self, n: int) -> Arrays:
        """The first n trials, and the failed ones up to the next."""
        if n >= len(self.numbers):
            return self
        return self.before(int(self.numbers[n]))


_BY_TRIAL = tuple(name for name in Arrays._fields if name != "failures")


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
        self.n_warm = sum(not row.failed for row in warm)
        self.constraints: tuple[str, ...] = ()
        self.passed_over: list[int] = []
        self.outside: list[int] = []
        self.infinite: list[int] = []
        self._open = 0  # all trials before this position of the list are finished and taken in
        self._seen: set[int] = set()
        self._failed: dict[int, FloatArray] = {}
        self._repeated: set[int] = set()
        self._taken = np.array([row.x for row in warm]).reshape(len(warm), joint.n_columns)
        self._arrays = self._stack([], 0)
        self._add([row._replace(number=i - len(warm)) for i, row in enumerate(warm)])

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in trials of one study, sorted by number; each is looked at once when finished.

        Trials that lack a part of the mixture go to ``passed_over``; those outside the
        constraints to ``outside`` and those with infinite scores to ``infinite``, though they
        are learned from.
        """
        new: list[Row] = []
        repeated = repeated_numbers(trials[self._open :])
        for position in range(self._open, len(trials)):
            trial = trials[position]
            if not trial.state.is_finished():
                continue
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                new += self._read(trial)
            if position == self._open:
                self._open += 1
        self._add(new, repeated)

    def __len__(self) -> int:
        return len(self._arrays.numbers)

    def arrays(self) -> Arrays:
        """All rows by trial number. The arrays are shared: do not write to them."""
        return self._arrays

    @property
    def taken(self) -> FloatArray:
        """Rows (t, d) of all finished trials, of those too that nothing is learned from."""
        return self._taken

    def _read(self, trial: FrozenTrial) -> list[Row]:
        """The trial as a row, if it has one."""
        scores = self.targets.read(trial) if trial.state.name == "COMPLETE" else None
        row = self.joint.encode(trial)
        if trial.state.name == "COMPLETE" and (row is None or scores is None):
            self.passed_over.append(trial.number)
        if row is None:
            return []
        self._taken = np.concatenate([self._taken, row[None]])
        b, m = self.targets.mixing.shape
        unknown = Row(trial.number, row, np.full(b, np.nan), np.full(m, np.nan), trial.constraints)
        blocks, reports = self.targets.read_blocks(trial), self.targets.read_reports(trial)
        cheap = self.targets.read_cheap(trial)
        if scores is not None:
            values = self.targets.values(trial)
            if np.isinf(scores).any() or np.isinf(values).any():
                self.infinite.append(trial.number)
            read = unknown._replace(scores=scores, values=values, blocks=blocks, reports=reports)
            read = read._replace(cheap=cheap)
        elif trial.state.name == "PRUNED" and cheap is not None:
            scored = self.targets.read(trial)
            read = unknown._replace(
                scores=unknown.scores if scored is None else scored, cheap=cheap
            )
        elif blocks is None and has_failed(trial):
            read = unknown._replace(failed=True)
        elif blocks is not None or reports:
            read = unknown._replace(blocks=blocks, reports=reports)
        else:
            return []
        if not self.joint.contains(row):
            self.outside.append(trial.number)
        return [read]

    def _add(self, rows: Sequence[Row], repeated: Collection[int] = ()) -> None:
        """Take in rows, and forget failures of trials that are repeated."""
        self._repeated.update(repeated)
        failed = {row.number: row.x for row in rows if row.failed}
        if failed or not self._repeated.isdisjoint(self._failed):
            known = sorted({**self._failed, **failed}.items())
            self._failed = {n: x for n, x in known if n not in self._repeated}
            self._arrays = self._arrays._replace(failures=self._stack_failures())
        rows = [row for row in rows if not row.failed]
        if not rows:
            return
        keys = set(self.constraints).union(*(row.constraints for row in rows))
        if len(keys) > len(self.constraints):
            known_keys = tuple(sorted(keys))
            wider = np.full((len(self), len(known_keys)), np.nan)
            wider[:, [known_keys.index(key) for key in self.constraints]] = self._arrays.C
            self.constraints, self._arrays = known_keys, self._arrays._replace(C=wider)
        B = self._arrays.B
        n_blocks = max(0 if row.blocks is None else row.blocks.shape[1] for row in rows)
        if n_blocks > B.shape[2]:
            more = (0, n_blocks - B.shape[2])
            B = np.pad(B, ((0, 0), (0, 0), more), constant_values=np.nan)
            self._arrays = self._arrays._replace(B=B)
        new = self._stack(rows, B.shape[2])
        joined = self._arrays.join(new)
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
            _objects([row.reports for row in rows]),
            np.array([np.full(b, np.nan) if r.cheap is None else r.cheap for r in rows])
            .astype(float)
            .reshape(n, b),
            np.array([not np.isnan(row.values).any() for row in rows], dtype=bool),
            self._stack_failures(),
        )

    def _stack_failures(self) -> Failures:
        n = len(self._failed)
        X = np.array(list(self._failed.values()), dtype=float).reshape(n, self.joint.n_columns)
        return Failures(np.array(list(self._failed), dtype=np.int64), X)


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    """Array (n,) of objects as they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial says that its mixture fails.

    It has failed, or was pruned without a number by which it could have been judged: then the
    objective itself has refused the mixture.
    """
    reports = trial.intermediate_values
    is_judged = bool(reports) and np.isfinite(reports[max(reports)])
    is_judged = is_judged or any(name.startswith(CHEAP_PREFIX) for name in trial.user_attrs)
    return trial.state.name == "FAIL" or (trial.state.name == "PRUNED" and not is_judged)


def repeated_numbers(trials: Iterable[FrozenTrial]) -> set[int]:
    """Numbers of the trials that some of these repeat.

    Optuna and the workers repeat a trial whose worker was lost or told to stop: its failure says
    nothing of its mixture.
    """
    return {n for trial in trials for n in trial.system_attrs.get("retry_history", ())}
