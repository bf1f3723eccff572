"""Loaded tasks whose requests are built once and scored again and again."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from optuna_demix.errors import TaskError
from optuna_demix.scoring import harness
from optuna_demix.scoring.cards import Card
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.items import ItemTable, join, standard_error, tabulate
from optuna_demix.scoring.randomness import RandomState, random_state


@dataclass(frozen=True)
class UnitKey:
    """A task or group under one setting; loaded once however many benchmarks read it."""

    task: str
    num_fewshot: int | None
    limit: float | None


@dataclass
class _PreparedTask:
    """A loaded task with its requests, and what the last scoring made of it.

    Attributes:
        task: lm-eval's object.
        documents: Every document with its requests, in order.
        filters: The filters that a benchmark reads; ``None`` for all.
        raw: Per metric and filter, one value per document.
        broken: Whether the model answered with NaN.
    """

    task: Any
    documents: list[tuple[Any, list[Any]]]
    filters: set[str] | None
    raw: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    broken: bool = False

    @property
    def size(self) -> int:
        """Documents scored, as lm-eval counts them."""
        return max(map(len, self.raw.values()), default=0)

    def build(self, unit: _Unit) -> None:
        """Build the requests, few-shot examples included, once and for all."""
        where = f"{unit.card.path or unit.key.task}: task {self.task.task_name!r}"
        harness.build_requests(self.task, unit.key.limit, where=where)
        by_document: dict[Any, list[Any]] = {}
        for instance in self.task.instances:
            by_document.setdefault(instance.doc_id, []).append(instance)
        for instances in by_document.values():
            self.documents.append((instances[0].doc, sorted(instances, key=lambda i: i.idx)))

    def reset(self) -> None:
        """Forget the last answers."""
        self.raw, self.broken = {}, False
        for instance in self.task.instances:
            instance.resps, instance.filtered_resps = [], {}

    def process(self) -> None:
        """Turn answers into one value per metric, filter and document."""
        if self.broken:
            return
        self.task.apply_filters()
        # A function of the task's author may write into the document; lm-eval's own does not.
        authored = harness.has_own_metrics(self.task)
        for key in list(self.task.instances[0].filtered_resps):
            if self.filters is not None and key not in self.filters:
                continue
            for document, instances in self.documents:
                metrics = self.task.process_results(
                    copy.deepcopy(document) if authored else document,
                    [instance.filtered_resps[key] for instance in instances],
                )
                for metric, value in metrics.items():
                    self.raw.setdefault((metric, key), []).append(value)

    def value(self, metric: str, key: str) -> float:
        """Aggregate of a metric over the documents."""
        aggregate, _ = harness.aggregation(self.task, metric)
        try:
            return float(aggregate(self.raw[metric, key]))
        except OverflowError:  # a perplexity beyond floating point
            return math.inf

    def table(self, metric: str, key: str) -> ItemTable | None:
        """The documents behind :meth:`value`."""
        _, name = harness.aggregation(self.task, metric)
        return tabulate(self.raw[metric, key], name)


@dataclass(frozen=True)
class _Unit:
    key: UnitKey
    card: Card
    tasks: dict[str, _PreparedTask]
    groups: dict[str, Any]

    @property
    def group(self) -> Any | None:
        return self.groups.get(self.key.task)

    @property
    def task(self) -> _PreparedTask:
        return next(iter(self.tasks.values()))


class Suite:
    """Loaded tasks and their requests.

    All requests of one kind go to the model together, in the order of the units, as one call of
    ``simple_evaluate`` with these tasks would send them.

    Args:
        catalogue: Where the tasks are.
        cards: The names to load under each setting.
        filters: The filters that are read of each.
        model: What answers.
        seed: Of the few-shot examples.

    Raises:
        TaskError: If a task cannot be loaded or its requests cannot be built.
    """

    def __init__(
        self,
        catalogue: harness.Catalogue,
        cards: Mapping[UnitKey, Card],
        filters: Mapping[UnitKey, set[str]],
        model: harness.PreparedModel,
        *,
        seed: int,
    ) -> None:
        self._model = model
        self._requests: dict[str, list[tuple[_PreparedTask, Any]]] = {}
        with random_state(RandomState.seeded(*harness.STARTING_SEEDS)):
            self._units = {
                key: _Unit(
                    key,
                    card,
                    {
                        name: _PreparedTask(task, [], None if groups else filters[key])
                        for name, task in tasks.items()
                    },
                    groups,
                )
                for key, card in cards.items()
                for tasks, groups in [catalogue.load(key.task)]
            }
            for unit in self._units.values():
                for task in unit.tasks.values():
                    harness.configure(task.task, unit.key.num_fewshot, seed=seed)
            for unit in self._units.values():
                for task in unit.tasks.values():
                    task.build(unit)
            # Where lm-eval would now turn to the model; sampled answers start from here.
            self._state = RandomState.current()
        for unit in self._units.values():
            for task in unit.tasks.values():
                for instance in task.task.instances:
                    of_kind = self._requests.setdefault(instance.request_type, [])
                    of_kind.extend([(task, instance)] * instance.repeats)
        for kind, requests in self._requests.items():
            model.prepare(kind, [instance for _, instance in requests])

    def run(self) -> None:
        """Score the model as it is."""
        for unit in self._units.values():
            for task in unit.tasks.values():
                task.reset()
        model = self._model
        if model.model.training:
            model.model.eval()
        with random_state(self._state), harness.quiet():
            with (
                torch.inference_mode(),
                torch.autocast(device_type=model.device.type, enabled=False),
            ):
                for kind, requests in self._requests.items():
                    for (task, instance), answer in zip(requests, model.answer(kind), strict=True):
                        instance.resps.append(answer)
                        task.broken = task.broken or _is_nan(answer)
            for unit in self._units.values():
                for task in unit.tasks.values():
                    task.process()

    def value(self, key: UnitKey, metric: str, filter_name: str) -> float:
        """Aggregated metric of the last :meth:`run`; NaN if the model answered with NaN.

        Raises:
            TaskError: If the task does not give the metric.
        """
        unit = self._units[key]
        if any(task.broken for task in unit.tasks.values()):
            return math.nan
        if unit.group is None:
            self._check_given(unit, metric, filter_name)
            return unit.task.value(metric, filter_name)
        aggregate = unit.group.aggregate(self._leaf_values(unit, metric))
        if f"{metric},{filter_name}" not in aggregate:
            given = sorted({f"{m},{f}" for task in unit.tasks.values() for m, f in task.raw})
            raise TaskError(
                f"{unit.card.where}: no task of the group gives {metric},{filter_name}, "
                f"only {', '.join(given)}"
            )
        return float(aggregate[f"{metric},{filter_name}"])

    def table(self, key: UnitKey, metric: str, filter_name: str) -> ItemTable | None:
        """Documents behind :meth:`value`; of a group those of its tasks, one after another."""
        unit = self._units[key]
        if any(task.broken for task in unit.tasks.values()):
            return None
        if unit.group is None:
            return unit.task.table(metric, filter_name)
        tables = [
            task.table(metric, filter_name)
            for task in unit.tasks.values()
            if (metric, filter_name) in task.raw
        ]
        found = [table for table in tables if table is not None]
        return (
            join(found, by_size=_by_size(unit.group, metric))
            if len(found) == len(tables)
            else None
        )

    def error(self, key: UnitKey, metric: str, filter_name: str) -> float:
        """Standard error of :meth:`value`; NaN where there is none.

        A task's follows :func:`~optuna_demix.scoring.items.standard_error`; a group's is what
        lm-eval pools from its tasks'.
        """
        unit = self._units[key]
        if unit.group is None:
            table = self.table(key, metric, filter_name)
            return math.nan if table is None else standard_error(table)
        values = self._leaf_values(unit, metric)
        for name, task in unit.tasks.items():
            if (metric, filter_name) not in task.raw:
                continue
            table = task.table(metric, filter_name)
            error = math.nan if table is None else standard_error(table)
            if not math.isfinite(error):
                return math.nan
            values[name][f"{metric}_stderr,{filter_name}"] = error
        if any(task.broken for task in unit.tasks.values()):
            return math.nan
        pooled = unit.group.aggregate(values).get(f"{metric}_stderr,{filter_name}", "N/A")
        return math.nan if pooled == "N/A" else float(pooled)

    def directions(self, key: UnitKey, metric: str) -> set[bool]:
        """What the loaded tasks say about whether a higher metric is better."""
        unit = self._units[key]
        found = {task.task.higher_is_better().get(metric) for task in unit.tasks.values()}
        return {bool(value) for value in found if value is not None}

    def describe(self, key: UnitKey) -> list[dict[str, Any]]:
        """The tasks behind a unit, JSON-able."""
        return [
            {
                "task": name,
                "version": task.task.VERSION,
                "num_fewshot": task.task.get_config("num_fewshot"),
                "documents": len(task.documents),
                "requests": len(task.task.instances),
            }
            for name, task in self._units[key].tasks.items()
        ]

    def requests(self) -> dict[str, int]:
        """Number of requests by kind."""
        return {kind: len(requests) for kind, requests in self._requests.items()}

    def digest(self) -> str:
        """Hash of configurations, documents, requests and token ids; free of paths."""
        return digest(
            [
                [
                    [unit.key.num_fewshot, unit.key.limit, unit.key.task],
                    [_group_content(group) for group in unit.groups.values()],
                    [_task_content(name, task) for name, task in unit.tasks.items()],
                ]
                for unit in self._units.values()
            ]
            + [self._model.digest()]
        )

    def _leaf_values(self, unit: _Unit, metric: str) -> dict[str, dict[str, Any]]:
        """lm-eval's result table, the rows of a group's tasks and of one metric only."""
        return {
            name: {
                "sample_len": task.size,
                **{f"{m},{f}": task.value(m, f) for m, f in task.raw if m == metric},
            }
            for name, task in unit.tasks.items()
        }

    def _check_given(self, unit: _Unit, metric: str, filter_name: str) -> None:
        if (metric, filter_name) not in unit.task.raw:
            given = ", ".join(sorted({m for m, _ in unit.task.raw}))
            raise TaskError(f"{unit.card.where}: gives no metric {metric!r}, only {given}")


def _is_nan(answer: Any) -> bool:
    value = answer[0] if isinstance(answer, tuple) else answer
    return isinstance(value, float) and math.isnan(value)


def _by_size(group: Any, metric: str) -> bool:
    return all(a.weight_by_size for a in group.aggregate_metric_list if a.metric == metric)


def _task_content(name: str, prepared: _PreparedTask) -> Any:
    content = [
        [document, [[i.request_type, i.arguments, i.repeats] for i in instances]]
        for document, instances in prepared.documents
    ]
    return [name, harness.settings(prepared.task), digest(content)]


def _group_content(group: Any) -> Any:
    return [group.name, group.child_names, group.aggregate_metric_list]
