"""What happens after each step: logging, saving, stopping."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training._checkpoints import MARKER
from optuna_demix.training._files import read_json, sync_all, write_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._lease import Lease
from optuna_demix.training._processes import greatest, signal_group
from optuna_demix.training._progress import Progress
from optuna_demix.training._schedule import snapshot_steps
from optuna_demix.training._sharding import layout_of
from optuna_demix.training._signals import TrainingStop
from optuna_demix.training._weights import snapshot_file


class Pilot:
    """Decides after each step whether to log, to save and to stop."""

    def __init__(
        self,
        job: Job,
        run: Run,
        stop: TrainingStop,
        meter: Progress,
        checkpoint: Path | None,
        lease: Lease | None = None,
    ) -> None:
        self._job = job
        self._run = run
        self._stop = stop
        self._meter = meter
        self._lease = lease
        self.snapshots = snapshot_steps(run)
        self._log_every = max(1, min(50, run.steps // 20))
        marker = None if checkpoint is None else read_json(checkpoint / MARKER)
        self._seconds_before = 0.0 if marker is None else float(marker["seconds"])
        self._began = time.monotonic()
        self._group = signal_group()
        self.stopped = False
        self.lost = False

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return self._seconds_before + time.monotonic() - self._began

    def begin(self, step: int) -> None:
        """Training begins after ``step``, 0 if it is not resumed."""
        self._began = time.monotonic()
        step_tokens = self._job.block_tokens * self._job.training.batch_size
        self._meter.begin(self._run.name, self._run.steps, step_tokens, step)

    def step(self, step: int, control: Any) -> None:
        """A step is done."""
        self._meter.advance()
        last = step >= self._run.steps
        asked = self._stop.requested
        due = not last and step % self._job.training.save_every == 0
        # All processes must do the same after the same step: stop, or leave the model to others.
        verdict = greatest(2 if self._is_lost(asked or due) else int(asked), self._group)
        self.lost = verdict == 2
        self.stopped = verdict == 1 and not last
        control.should_save = (due or self.stopped) and not self.lost
        control.should_log = last or control.should_save or step % self._log_every == 0
        if self.stopped or self.lost:
            control.should_training_stop = True

    def log(self, step: int, loss: float) -> None:
        """Take the mean loss since the last log.

        Raises:
            ConfigError: If it is not finite.
        """
        if not math.isfinite(loss):
            raise ConfigError(
                f"{self._job.config.source}: {self._run.section}.learning_rate: the loss of "
                f"{self._run.name} became {loss} at step {step}; lower it"
            )
        self._meter.loss(loss)

    def saved(self, checkpoint: Path) -> None:
        """Mark a checkpoint whole, once it is safe on the disk."""
        sync_all(checkpoint)
        files = [path for path in checkpoint.rglob("*") if path.is_file()]
        files += [
            snapshot_file(checkpoint.parent, step)
            for step in self.snapshots
            if step <= int(checkpoint.name.split("-")[1])
        ]
        sizes = {os.path.relpath(file, checkpoint): file.stat().st_size for file in files}
        marker = {"seconds": self.seconds, "files": sizes, **layout_of(self._job.training)}
        write_json(checkpoint / MARKER, marker)

    def may_write(self) -> bool:
        """Whether no other process has taken the model over, for certain."""
        return self._lease is None or self._lease.holds()

    def _is_lost(self, writes: bool) -> bool:
        if writes:
            return not self.may_write()
        return self._lease is not None and self._lease.is_lost()
