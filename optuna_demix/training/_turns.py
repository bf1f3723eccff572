"""Takes models one after another, beside other processes that do the same."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna_demix.errors import DemixError
from optuna_demix.training._job import Job, Run
from optuna_demix.training._lease import Lease, LeaseLostError, fresh_time, holder_of
from optuna_demix.training._one_model import train_one
from optuna_demix.training._processes import agreed, greatest, process_count, rank, signal_group
from optuna_demix.training._progress import Progress
from optuna_demix.training._signals import TrainingStop
from optuna_demix.training._standing import Standing
from optuna_demix.training._trainer import make_arguments
from optuna_demix.training.data.blocks import Blocks
from optuna_demix.training.data.corpus import Corpus
from optuna_demix.training.data.tokens import blocks_of

POLL_S = 2.0
"""Seconds between two looks at what other processes hold."""


@dataclass(frozen=True)
class _Turn:
    """What the processes of one call do next.

    Attributes:
        name: The model that they train; ``None`` to wait.
        recipe: Its recipe.
        left: All models that are not there yet.
    """

    name: str | None
    recipe: dict[str, Any]
    left: list[str]


class Turns:
    """The models that are left, of which this process takes one after another.

    Args:
        job: What all runs share.
        runs: The runs.
        standing: Which of them are to be trained.
        blocks: Blocks of tokens of their datasets.
        stop: Where requests to stop are noted.
        meter: The progress of training.
    """

    def __init__(
        self,
        job: Job,
        runs: Sequence[Run],
        standing: Standing,
        blocks: Mapping[str, Blocks],
        stop: TrainingStop,
        meter: Progress,
    ) -> None:
        self._job, self._standing, self._blocks = job, standing, blocks
        self._stop, self._meter = stop, meter
        self._runs = {run.name: run for run in runs}
        self._left = [run.name for run in standing.todo]
        self._group = None
        if runs and process_count() > 1:
            make_arguments(job, runs[0], job.partial(runs[0]))  # joins the processes
            self._group = signal_group()

    def take_all(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Train models until all are there, and wait for those of other processes.

        Returns:
            Records of those which this process has trained, and of those which it found.
        """
        trained: dict[str, dict[str, Any]] = {}
        while True:
            lease, said = self._next() if rank() == 0 else (None, None)
            with lease or contextlib.nullcontext():
                turn: _Turn | DemixError = agreed(said, self._group)
                if isinstance(turn, DemixError):
                    raise turn
                self._left = turn.left
                if not self._left:
                    return trained, agreed(self._standing.records, self._group)
                if greatest(int(self._stop.requested), self._group):
                    raise self._stop.error(f"before {turn.name or self._left[0]}")
                if turn.name is None:
                    self._stop.wait(POLL_S)
                    continue
                run = self._runs[turn.name]
                record = self._train(run, turn.recipe, lease)
            if record is not None:
                trained[run.name] = record
                self._left.remove(run.name)
                if rank() == 0:
                    self._standing.needs(run)  # what starts from a base is compared with it now

    def _next(self) -> tuple[Lease | None, _Turn | DemixError]:
        """What all processes do next, or the mistake that each of them raises."""
        try:
            return self._take()
        except DemixError as error:
            return None, error

    def _take(self) -> tuple[Lease | None, _Turn]:
        """Take a model that nobody trains, if there is one."""
        holders: dict[str, str] = {}
        for run in [self._runs[name] for name in self._left]:
            if self._standing.base_is_new and not run.is_base:
                continue
            if not self._standing.needs(run):
                self._came(run)
                continue
            place = self._job.lease(run.name)
            lease = Lease.take(place)
            if lease is None:
                holder = holder_of(place)
                if holder is not None:
                    holders[run.name] = holder
                continue
            try:
                if self._needs_now(run):
                    return lease, _Turn(run.name, self._standing.recipe(run), list(self._left))
                shutil.rmtree(self._job.partial(run), ignore_errors=True)
            except BaseException:
                lease.release()
                raise
            lease.release()
            self._came(run)
        self._meter.wait(holders)
        return None, _Turn(None, {}, list(self._left))

    def _needs_now(self, run: Run) -> bool:
        """Whether a run is to be trained, now that nobody else can do it."""
        if run.path.parent.is_dir():
            fresh_time(run.path.parent)
        return self._standing.needs(run)

    def _came(self, run: Run) -> None:
        self._left.remove(run.name)
        step_tokens = self._job.block_tokens * self._job.training.batch_size
        self._meter.trained_elsewhere(run.name, run.steps * step_tokens)

    def _train(
        self, run: Run, recipe: dict[str, Any], lease: Lease | None
    ) -> dict[str, Any] | None:
        """Train a model; returns its record, or ``None`` if another process took it over."""
        try:
            return train_one(
                self._job,
                run,
                recipe,
                self._blocks,
                self._stop,
                self._meter,
                lease=lease,
                group=self._group,
            )
        except LeaseLostError:
            pass
        except Exception:
            # Who has taken it over drops files that this process was about to write.
            if self._group is not None or lease is None or lease.holds():
                raise
        self._meter.lost(run.name)
        return None


def tokenize_all(
    job: Job, corpora: Mapping[str, Corpus], names: Sequence[str]
) -> dict[str, Blocks]:
    """The blocks of datasets; each is tokenized by one of all processes.

    A lease keeps hosts apart whose disk does not share locks.
    """
    blocks: dict[str, Blocks] = {}
    told = ""
    while True:
        holders: dict[str, str | None] = {}
        for name in names:
            if name in blocks:
                continue
            lease = Lease.take(job.text_lease(name))
            if lease is None:
                holders[name] = holder_of(job.text_lease(name))
                continue
            with lease:
                blocks[name] = blocks_of(job, corpora[name])
        if not holders:
            return blocks
        waits = "; ".join(
            f"the tokens of {name}, which {holder} makes"
            for name, holder in holders.items()
            if holder is not None
        )
        if waits and waits != told:
            told = waits
            job.report(f"waiting for {waits}")
        time.sleep(POLL_S)


def await_base(job: Job) -> None:
    """Wait until nobody trains the base."""
    told = False
    while (holder := holder_of(job.lease("base"))) is not None:
        if not told:
            job.report(f"waiting for base, which {holder} trains")
        told = True
        time.sleep(POLL_S)
