"""``Bill``: what a study costs, as numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna_demix.bill.rates import Machine
from optuna_demix.bill.runs import TrainingRun, training_bytes
from optuna_demix.bill.shape import ModelShape
from optuna_demix.bill.trials import TrialCost

_ALWAYS_WRITE = 8  # the first trials of a screened study, which write texts in any case


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Attributes:
        arena: The arena, on disk and, where it fits, on each GPU.
        model: A worker's model.
        resident: Whether the arena fits beside the model on the GPUs of a worker.
    """

    arena: int
    model: int
    resident: bool


@dataclass(frozen=True)
class Bill:
    """What a study costs.

    Attributes:
        machine: The GPU and what is assumed of it.
        n_gpus: How many there are.
        n_trials: Trials of the search.
        components: Names of the components, K of them.
        given: Those that need no training.
        shape: The model; ``None`` where it is not known.
        runs: Models to train, those that are there included.
        memory: Of a worker; ``None`` where the model is not known.
        gpus_of_worker: GPUs that one worker's model lies on.
        trial: A trial that merges; ``None`` where none does, or the tasks are not known.
        merges: Whether trials merge; where they do not, they cost no GPU time.
        once: GPU-seconds of scoring each component once, for token probabilities.
        keep: Share of the trials that write screened texts.
        uncounted: Why a benchmark is missing in ``trial``, by its name.
        notes: What else is left out, a line each.
    """

    machine: Machine
    n_gpus: int
    n_trials: int
    components: tuple[str, ...]
    given: tuple[str, ...] = ()
    shape: ModelShape | None = None
    runs: tuple[TrainingRun, ...] = ()
    memory: Memory | None = None
    gpus_of_worker: int = 1
    trial: TrialCost | None = None
    merges: bool = True
    once: float = 0.0
    keep: float = 1.0
    uncounted: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def training_seconds(self) -> float | None:
        """GPU-seconds of all training; ``None`` where the model is not known."""
        if not self.runs:
            return 0.0
        if self.shape is None:
            return None
        return math.fsum(run.seconds(self.shape, self.machine) for run in self.runs)

    @property
    def n_workers(self) -> int:
        """Workers that the GPUs have room for."""
        return max(1, self.n_gpus // self.gpus_of_worker)

    @property
    def mean_seconds(self) -> float | None:
        """Seconds of a trial in the mean over the search, at most; ``None`` if not known."""
        if not self.merges:
            return self.machine.assumed.host
        if self.trial is None:
            return None
        n = self.n_trials
        writing = min(n, _ALWAYS_WRITE + math.ceil(self.keep * max(0, n - _ALWAYS_WRITE)))
        return self.trial.cheap_seconds + self.trial.screened * writing / n

    @property
    def trials_an_hour(self) -> float | None:
        """Trials that all workers finish in an hour; ``None`` if not known."""
        return None if self.mean_seconds is None else 3600 * self.n_workers / self.mean_seconds

    @property
    def search_seconds(self) -> float | None:
        """GPU-seconds of the search; ``None`` if not known."""
        if not self.merges:
            return self.once
        if self.mean_seconds is None:
            return None
        return self.once + self.n_trials * self.mean_seconds * self.gpus_of_worker

    @property
    def seconds(self) -> float | None:
        """GPU-seconds of everything; ``None`` where a part is not known."""
        parts = (self.training_seconds, self.search_seconds)
        known = [part for part in parts if part is not None]
        return math.fsum(known) if len(known) == len(parts) else None

    def to_json(self) -> str:
        """The bill with all that it follows from, as JSON."""
        return json.dumps(self._plain(), indent=2, allow_nan=False)

    def _plain(self) -> dict[str, Any]:
        trial = None
        if self.trial is not None:
            trial = {**dataclasses.asdict(self.trial), "seconds": self.trial.seconds}
        return {
            "gpu": dataclasses.asdict(self.machine.gpu),
            "assumed": dataclasses.asdict(self.machine.assumed),
            "n_gpus": self.n_gpus,
            "n_trials": self.n_trials,
            "components": list(self.components),
            "given": list(self.given),
            "model": None if self.shape is None else dataclasses.asdict(self.shape),
            "training": {
                "runs": [self._run(run) for run in self.runs],
                "bytes": None if self.shape is None else training_bytes(self.shape),
                "gpu_hours": _hours(self.training_seconds),
            },
            "memory": None if self.memory is None else dataclasses.asdict(self.memory),
            "gpus_of_worker": self.gpus_of_worker,
            "trial": trial,
            "merges": self.merges,
            "trials_an_hour": self.trials_an_hour,
            "search": {
                "once_gpu_hours": _hours(self.once),
                "gpu_hours": _hours(self.search_seconds),
            },
            "gpu_hours": _hours(self.seconds),
            "uncounted": dict(self.uncounted),
            "notes": list(self.notes),
        }

    def _run(self, run: TrainingRun) -> dict[str, Any]:
        shape = self.shape
        return {
            **dataclasses.asdict(run),
            "tokens": run.tokens,
            "flops": None if shape is None else run.flops(shape),
            "gpu_hours": None if shape is None else _hours(run.seconds(shape, self.machine)),
        }


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600
