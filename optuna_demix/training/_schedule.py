"""The learning rate over the steps of a run, and the steps whose weights are averaged."""

from __future__ import annotations

import math
from typing import Any

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Run


def schedule_arguments(run: Run) -> dict[str, Any]:
    """What TrainingArguments must know of a run's learning rate."""
    budget = run.budget
    warmup = math.ceil(budget.warmup_ratio * run.steps)
    options: dict[str, Any] = {}
    if budget.schedule == "cosine":
        name, options = "cosine_with_min_lr", {"min_lr_rate": budget.final_lr_ratio}
    elif budget.average is not None or not decay_steps(run):
        name = "constant_with_warmup"
    else:
        name = "warmup_stable_decay"
        options = {
            "num_decay_steps": min(decay_steps(run), run.steps - warmup),
            "decay_type": "1-sqrt",  # ahead of linear and cosine: arXiv:2405.18392
            "min_lr_ratio": budget.final_lr_ratio,
        }
    return {
        "learning_rate": budget.learning_rate,
        "warmup_steps": warmup,
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": options,
    }


def decay_steps(run: Run) -> int:
    """How many of the last steps decay, or are averaged."""
    return round(run.budget.decay_ratio * run.steps)


def check_schedule(config: StudyConfig, run: Run) -> None:
    """Refuse a mean of more snapshots than there are steps to take them after."""
    count = run.budget.average
    if count is not None and count > decay_steps(run):
        raise ConfigError(
            f"{config.source}: {run.section}.average: {count} snapshots are more than the "
            f"{decay_steps(run)} of {run.steps} steps in decay_ratio; give fewer"
        )


def snapshot_steps(run: Run) -> list[int]:
    """The steps after which the weights are kept for the mean, the last one included."""
    count = run.budget.average
    if count is None:
        return []
    # Evenly over the window: gradients count the less the later they come, as if the rate decayed.
    return [run.steps - (decay_steps(run) * i) // count for i in reversed(range(count))]
