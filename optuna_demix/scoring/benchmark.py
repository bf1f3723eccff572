"""What is to be scored: one metric of one lm-eval task."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_demix.errors import TaskError
from optuna_demix.scoring.settings import TaskSettings


@dataclass(frozen=True)
class Benchmark(TaskSettings):
    """One metric of one lm-eval task or group, a single number per model.

    The settings of :class:`~optuna_demix.scoring.settings.TaskSettings` go over the scorer's, and
    the scorer's over the task's own. Benchmarks of one task may differ in them: the task is then
    prepared once for each.

    Attributes:
        task: Name of a task or group: one of a local task directory or one of lm-eval's own.
        metric: Name of the metric, ``"acc"``; with the filter that lm-eval applies to the answers
            where a task has several, ``"exact_match,strict-match"``.
        name: How the score is called everywhere else; ``"task/metric"`` if left empty.
        higher_is_better: Direction of the metric; ``None`` takes it from the task.

    Raises:
        TaskError: A field holds something that cannot be used.
    """

    task: str
    metric: str
    name: str = ""
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        for field in ("task", "metric"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                raise TaskError(f"a benchmark needs a {field}: got {value!r}")
        if not self.measure:
            raise TaskError(
                f"benchmark of task {self.task!r}: no metric before the comma in {self.metric!r}"
            )
        if not self.name:
            object.__setattr__(self, "name", f"{self.task}/{self.metric}")
        self.check(f"benchmark {self.name!r}")

    @property
    def measure(self) -> str:
        """The metric's name without a filter."""
        return self.metric.partition(",")[0].strip()

    @property
    def filter(self) -> str | None:
        """The filter that ``metric`` names, or ``None``."""
        return self.metric.partition(",")[2].strip() or None
