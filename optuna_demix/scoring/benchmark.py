"""What is to be scored: one metric of one lm-eval task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna_demix.errors import TaskError


@dataclass(frozen=True)
class Benchmark:
    """One metric of one lm-eval task or group, a single number per model.

    Attributes:
        task: Name of a task or group: one of a local task directory or one of lm-eval's own.
        metric: Name of the metric, ``"acc"``; with the filter that lm-eval applies to the answers
            where a task has several, ``"exact_match,strict-match"``.
        name: How the score is called everywhere else; ``"task/metric"`` if left empty.
        num_fewshot: Examples in the prompt; ``None`` leaves it to the scorer, then to the task.
        limit: Only the first so many documents (>= 1) or that fraction of them (< 1); ``None``
            leaves it to the scorer.
        higher_is_better: Direction of the metric; ``None`` takes it from the task.

    Raises:
        TaskError: A field holds something that cannot be used.
    """

    task: str
    metric: str
    name: str = ""
    num_fewshot: int | None = None
    limit: float | None = None
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
        check_num_fewshot(self.num_fewshot, where=f"benchmark {self.name!r}")
        check_limit(self.limit, where=f"benchmark {self.name!r}")

    @property
    def measure(self) -> str:
        """The metric's name without a filter."""
        return self.metric.partition(",")[0].strip()

    @property
    def filter(self) -> str | None:
        """The filter that ``metric`` names, or ``None``."""
        return self.metric.partition(",")[2].strip() or None


def check_num_fewshot(value: object, *, where: str) -> None:
    """Refuse a number of few-shot examples that is not a whole number >= 0.

    Raises:
        TaskError: Naming ``where`` the value was given.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TaskError(f"{where}: num_fewshot must be a whole number >= 0, not {value!r}")


def check_limit(value: object, *, where: str) -> None:
    """Refuse a limit that is neither a count of documents nor a fraction of them.

    Raises:
        TaskError: Naming ``where`` the value was given.
    """
    if value is None:
        return
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if not usable or not math.isfinite(value) or (value > 1 and value != int(value)):  # type: ignore[operator,arg-type,call-overload]
        raise TaskError(
            f"{where}: limit must be a number of documents (>= 1) or a fraction of them "
            f"(between 0 and 1), not {value!r}"
        )
