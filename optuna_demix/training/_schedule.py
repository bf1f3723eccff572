"""The learning rate over the steps of a run, and the steps whose weights are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Run


def schedule_arguments(run: Run) -> dict[str, Any]:
    """What TrainingArguments must know of a run's learning rate."""
    budget = run.budget
    return {
        "learning_rate": budget.learning_rate,
        "warmup_steps": warmup_steps(run),
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": budget.final_lr_ratio},
    }


def own_rate(run: Run) -> Callable[[int], float] | None:
    """The rate of each step of ``wsd``, as a share of the peak; None if transformers has it.

    transformers' own warmup-stable-decay warms up from the rate at the end instead of from 0.
    """
    budget = run.budget
    if budget.schedule != "wsd":
        return None
    warmup = warmup_steps(run)
    decay = 0 if budget.average is not None else min(decay_steps(run), run.steps - warmup)

    def rate(step: int) -> float:
        if step < warmup:
            return step / warmup
        into = step - (run.steps - decay)
        if into <= 0:
            return 1.0
        # One minus a square root is ahead of a line and a cosine: arXiv:2405.18392.
        return 1.0 - (1.0 - budget.final_lr_ratio) * math.sqrt(min(into / decay, 1.0))

    return rate


def warmup_steps(run: Run) -> int:
    """How many of the first steps warm up."""
    return math.ceil(run.budget.warmup_ratio * run.steps)


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
