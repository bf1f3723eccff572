"""Plans the runs of a study for other trainers: a module for each, named in :data:`TRAINERS`.

A trainer's module is a pure function from a run to the files that its framework reads and the
shell lines that train, and that turn the result into a Hugging Face checkpoint.
"""

from __future__ import annotations

from optuna_demix.training.trainers.planning import write_plan
from optuna_demix.training.trainers.registry import TRAINERS
from optuna_demix.training.trainers.runs import PlannedRun, PlanOptions, Trainer

__all__ = ["TRAINERS", "PlanOptions", "PlannedRun", "Trainer", "write_plan"]
