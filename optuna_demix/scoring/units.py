"""Units that benchmarks are read from: tasks or groups under some settings."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from optuna_demix.errors import TaskError
from optuna_demix.scoring.gold import GOLD_METRIC
from optuna_demix.scoring.harness import TaskSpec
from optuna_demix.scoring.harness.task_specs import NO_FILTER
from optuna_demix.scoring.items import ItemTable, join, standard_error
from optuna_demix.scoring.prepared_task import Blocks, PreparedTask, Wanted
from optuna_demix.scoring.settings import TaskSettings

_PASS_AT = re.compile(r"pass@([1-9][0-9]*)")


@dataclass(frozen=True)
class UnitKey:
    """A task or group under some settings; loaded once however many benchmarks read it."""

    task: str
    settings: TaskSettings


class RequestKind(NamedTuple):
    """Requests that the model is given together.

    Attributes:
        request_type: lm-eval's name of what is asked.
        think_end_token: What ends the model's thoughts, where texts are asked for.
        screened: Whether they are texts that not every model is asked for.
    """

    request_type: str
    think_end_token: str | int | None
    screened: bool = False

    @classmethod
    def of(cls, instance: Any, settings: TaskSettings, *, screened: bool) -> RequestKind:
        """The kind of one of lm-eval's requests."""
        if instance.request_type != "generate_until":
            return cls(instance.request_type, None)
        return cls(instance.request_type, settings.think_end_token, screened)


@dataclass(frozen=True)
class Unit:
    """The tasks that one benchmark, or several of the same settings, are read from.

    Attributes:
        key: What was loaded.
        spec: What its configuration says.
        tasks: The loaded tasks, by name.
        groups: lm-eval's groups of these tasks, by name.
    """

    key: UnitKey
    spec: TaskSpec
    tasks: dict[str, PreparedTask]
    groups: dict[str, Any]

    def build(self, chat: Callable[..., str] | None) -> None:
        """Build the requests of every task."""
        for task in self.tasks.values():
            where = f"{self.spec.path or self.key.task}: task {task.task.task_name!r}"
            task.build(self.key.settings, chat=chat, where=where)

    def deal(self, n_blocks: int, *, seed: int) -> None:
        """Deal the documents to blocks, an equal share to each, in an order that never changes.

        Raises:
            TaskError: If there are fewer documents than blocks.
        """
        total = sum(len(task.documents) for task in self.tasks.values())
        if total < n_blocks:
            raise TaskError(
                f"{self.spec.where}: has {total} documents, too few for {n_blocks} blocks of "
                "racing; lower scoring.racing.blocks or raise its limit"
            )
        dealt = 0
        for name, task in self.tasks.items():
            count = len(task.documents)
            order = list(range(count))
            if n_blocks > 1:
                random.Random(f"{seed} {name}").shuffle(order)
            task.blocks = [
                sorted(order[(block - dealt) % n_blocks :: n_blocks]) for block in range(n_blocks)
            ]
            dealt += count

    def content(self) -> list[Any]:
        """All that its scores depend on beside the answers, to be hashed."""
        settings = self.key.settings
        return [
            [settings.num_fewshot, settings.limit, self.key.task],
            [[g.name, g.child_names, g.aggregate_metric_list] for g in self.groups.values()],
            [[name, *task.content()] for name, task in self.tasks.items()],
        ]

    @property
    def group(self) -> Any | None:
        """lm-eval's group of these tasks, if they are one."""
        return self.groups.get(self.key.task)

    @property
    def task(self) -> PreparedTask:
        """The task, where there is only one."""
        return next(iter(self.tasks.values()))

    @property
    def broken(self) -> bool:
        """Whether the model answered any of the tasks with NaN."""
        return any(task.broken for task in self.tasks.values())

    def cheap_value(self) -> float:
        """Bits per byte of the right answers of all tasks of a screened unit; NaN if broken."""
        if self.broken:
            return math.nan
        tasks = list(self.tasks.values())
        raw = [pair for t in tasks for pair in t.raw(None)[GOLD_METRIC, NO_FILTER]]
        return tasks[0].value(GOLD_METRIC, raw)

    def value(self, metric: str, filter_name: str, *, blocks: Blocks = None) -> float:
        """Aggregated metric of what was scored; NaN if the model answered with NaN.

        Args:
            metric: The metric.
            filter_name: Its filter.
            blocks: Only the documents of these blocks.

        Raises:
            TaskError: If the task does not give the metric.
        """
        if self.broken:
            return math.nan
        if self.group is None:
            return self.task.value(metric, self._given(metric, filter_name, blocks))
        aggregate = self.group.aggregate(self._leaf_values(metric, blocks))
        if f"{metric},{filter_name}" not in aggregate:
            given = sorted({f"{m},{f}" for t in self.tasks.values() for m, f in t.raw(blocks)})
            raise TaskError(
                f"{self.spec.where}: no task of the group gives {metric},{filter_name}, "
                f"only {', '.join(given)}"
            )
        return float(aggregate[f"{metric},{filter_name}"])

    def table(self, metric: str, filter_name: str) -> ItemTable | None:
        """Documents behind :meth:`value`; of a group those of its tasks, one after another."""
        if self.broken:
            return None
        if self.group is None:
            return self.task.table(metric, self._given(metric, filter_name, None))
        tables = [task.table(metric, raw) for task, raw in self.leaves(metric, filter_name)]
        found = [table for table in tables if table is not None]
        return (
            join(found, by_size=_by_size(self.group, metric))
            if len(found) == len(tables)
            else None
        )

    def error(self, metric: str, filter_name: str) -> float:
        """Standard error of :meth:`value`; NaN where there is none.

        A task's follows :func:`~optuna_demix.scoring.items.standard_error`; a group's is what
        lm-eval pools from its tasks'.
        """
        if self.group is None:
            table = self.table(metric, filter_name)
            return math.nan if table is None else standard_error(table)
        values = self._leaf_values(metric, None)
        for name, task in self.tasks.items():
            raw = task.raw(None).get((metric, filter_name))
            if raw is None:
                continue
            table = task.table(metric, raw)
            error = math.nan if table is None else standard_error(table)
            if not math.isfinite(error):
                return math.nan
            values[name][f"{metric}_stderr,{filter_name}"] = error
        if self.broken:
            return math.nan
        pooled = self.group.aggregate(values).get(f"{metric}_stderr,{filter_name}", "N/A")
        return math.nan if pooled == "N/A" else float(pooled)

    def leaves(self, metric: str, filter_name: str) -> list[tuple[PreparedTask, list[Any]]]:
        """The tasks behind :meth:`value` that give the metric, and what their documents gave."""
        if self.group is None:
            return [(self.task, self._given(metric, filter_name, None))]
        return [
            (task, raw)
            for task in self.tasks.values()
            if (raw := task.raw(None).get((metric, filter_name)))
        ]

    def shares(self, metric: str, sizes: Sequence[int]) -> list[float]:
        """Share of each of :meth:`leaves`, of so many documents, in a mean over them."""
        group = self.group
        if group is not None and not _by_size(group, metric):
            sizes = [1] * len(sizes)
        return [size / sum(sizes) for size in sizes]

    def n_documents(self, blocks: Sequence[int]) -> int:
        """Number of documents in some blocks."""
        return sum(len(task.blocks[block]) for task in self.tasks.values() for block in blocks)

    def directions(self, metric: str) -> set[bool]:
        """What the loaded tasks say about whether a higher metric is better."""
        found = {task.task.higher_is_better().get(metric) for task in self.tasks.values()}
        return {bool(value) for value in found if value is not None}

    def describe(self) -> list[dict[str, Any]]:
        """The tasks, JSON-able."""
        return [
            {
                "task": name,
                "version": task.task.VERSION,
                "num_fewshot": task.task.get_config("num_fewshot"),
                "documents": len(task.documents),
                "requests": sum(1 for b in range(len(task.blocks)) for _ in task.requests(b)),
            }
            for name, task in self.tasks.items()
        ]

    def _leaf_values(self, metric: str, blocks: Blocks) -> dict[str, dict[str, Any]]:
        """lm-eval's result table, the rows of a group's tasks and of one metric only."""
        table = {}
        for name, task in self.tasks.items():
            raw = task.raw(blocks)
            if not raw and blocks is not None:
                continue  # a small task has no document in some blocks
            table[name] = {
                "sample_len": max(map(len, raw.values()), default=0),
                **{f"{m},{f}": task.value(m, raw[m, f]) for m, f in raw if m == metric},
            }
        return table

    def _given(self, metric: str, filter_name: str, blocks: Blocks) -> list[Any]:
        raw = self.task.raw(blocks)
        if (metric, filter_name) not in raw:
            given = ", ".join(sorted({m for m, _ in raw}))
            raise TaskError(f"{self.spec.where}: gives no metric {metric!r}, only {given}")
        return raw[metric, filter_name]


def wanted_of(
    addresses: Iterable[tuple[UnitKey, str, str]],
    answers: Mapping[UnitKey, str | None] = MappingProxyType({}),
) -> dict[UnitKey, Wanted]:
    """What is read of each unit, in order.

    Args:
        addresses: Unit, metric and filter of each benchmark.
        answers: Of the units that are screened, the field with the right answer.
    """
    read: dict[UnitKey, set[tuple[str, str]]] = {}
    for key, metric, filter_name in addresses:
        read.setdefault(key, set()).add((metric, filter_name))
    return {
        key: Wanted(
            frozenset(name for metric, name in found if metric != GOLD_METRIC),
            key in answers or any(metric == GOLD_METRIC for metric, _ in found),
            answers.get(key),
            frozenset(int(k[1]) for metric, _ in found if (k := _PASS_AT.fullmatch(metric))),
        )
        for key, found in read.items()
    }


def _by_size(group: Any, metric: str) -> bool:
    return all(a.weight_by_size for a in group.aggregate_metric_list if a.metric == metric)
