"""``Suite``: loaded tasks whose requests are built once and scored again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from optuna_demix._progress import Report
from optuna_demix._wording import counted
from optuna_demix.errors import TaskError
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.harness import TaskSpec
from optuna_demix.scoring.harness import tasks as lm_eval_tasks
from optuna_demix.scoring.harness.confined import code_eval_stands_in, confine, runs_code
from optuna_demix.scoring.harness.processing import processed_anew
from optuna_demix.scoring.harness.quiet import quiet
from optuna_demix.scoring.items import ItemTable, join, standard_error
from optuna_demix.scoring.prepared_task import PreparedTask, RequestKind, Unit, Wanted
from optuna_demix.scoring.randomness import RandomState, random_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix.scoring.harness import Catalog, ForwardPlan, PreparedModel
    from optuna_demix.scoring.prepared_task import Blocks, UnitKey


class Suite:
    """Loaded tasks and their requests.

    All requests of one kind and block go to the model together, in the order of the units; with a
    single block, as one call of ``simple_evaluate`` with these tasks would send them.

    Args:
        catalog: Where the tasks are.
        specs: What to load, by key.
        wanted: What is read of each.
        model: What answers.
        seed: Of the few-shot examples and of the order of the documents.
        n_blocks: Parts that documents are scored in.
        report: Where progress is shown.
        sandboxed: Whether code that the model wrote runs in a sandbox.

    Raises:
        TaskError: If a task cannot be loaded, its requests cannot be built, or it has fewer
            documents than blocks.
    """

    def __init__(
        self,
        catalog: Catalog,
        specs: Mapping[UnitKey, TaskSpec],
        wanted: Mapping[UnitKey, Wanted],
        model: PreparedModel,
        *,
        seed: int,
        n_blocks: int = 1,
        report: Report | None = None,
        sandboxed: bool = True,
    ) -> None:
        say = report or Report()
        self._model = model
        self.n_blocks = n_blocks
        # lm-eval's seeds, and nothing that another run has drawn: every host has these documents.
        start = RandomState.seeded(*lm_eval_tasks.STARTING_SEEDS)
        metric = code_eval_stands_in() if sandboxed else nullcontext()
        with random_state(start), processed_anew(), metric:
            self._units = {}
            with say.step("loading tasks", unit="task", total=len(specs)) as step:
                for key, spec in specs.items():
                    tasks, groups = catalog.load(key.task, key.settings.metadata)
                    prepared = {
                        name: PreparedTask(task, wanted[key].of_a_group if groups else wanted[key])
                        for name, task in tasks.items()
                    }
                    self._units[key] = Unit(key, spec, prepared, groups)
                    step.advance()
            for unit in self._units.values():
                for task in unit.tasks.values():
                    task.configure(unit.key.settings, seed=seed, where=unit.spec.where)
            with say.step("building requests", unit="task", total=len(specs)) as step:
                for unit in self._units.values():
                    unit.build(model.chat(unit.key.settings.apply_chat_template))
                    step.advance()
            # Where lm-eval would now turn to the model; sampled answers start from here.
            self._start = self._state = RandomState.current()
        for unit in self._units.values():
            unit.deal(n_blocks, seed=seed)
        if sandboxed:
            self._confine()
        self._requests = [self._requests_of(block) for block in range(n_blocks)]
        kinds = dict.fromkeys(kind for requests in self._requests for kind in requests)
        n_requests = sum(len(asked) for block in self._requests for asked in block.values())
        with say.step(f"tokenizing {counted(n_requests, 'request')}"):
            self._plans = {
                kind: model.prepare(
                    kind.request_type,
                    [[i for _, i in requests.get(kind, ())] for requests in self._requests],
                    think_end_token=kind.think_end_token,
                )
                for kind in kinds
            }

    def _confine(self) -> None:
        """Let the tasks that run code which the model wrote do so in a sandbox."""
        unsafe = [
            (task, unit.spec.where)
            for unit in self._units.values()
            for task in unit.tasks.values()
            if runs_code(task.task)
        ]
        sandbox = confine([(task.task, where) for task, where in unsafe]) if unsafe else None
        for task, _ in unsafe:
            task.sandbox = sandbox

    def run(self, seed: int | None = None) -> None:
        """Score the model as it is.

        Args:
            seed: Of sampled texts; by default they start as lm-eval's do.
        """
        self.reset(seed)
        for block in range(self.n_blocks):
            self.run_block(block)

    def reset(self, seed: int | None = None) -> None:
        """Forget all answers; texts will be sampled from a seed, or as lm-eval's are."""
        self._model.weights_changed()
        for task in self._tasks:
            task.reset()
        self._state = self._start if seed is None else RandomState.seeded(seed, seed % 2**32, seed)

    def run_block(self, block: int) -> None:
        """Score the model as it is on the documents of one block, after those before it."""
        with self._drawing():
            with self._inference():
                self._answer(block, self._model.answer)
            self._process(block)

    def replay(self, answers: Sequence[Any]) -> None:
        """Score with given answers instead of the model's.

        Args:
            answers: To every request, in the order of :meth:`asked`, as lm-eval's models give it.
        """
        self.reset()
        of_plan, first = {}, 0
        for plan in self._in_order():
            of_plan[id(plan)] = answers[first : first + len(plan.instances)]
            first += len(plan.instances)
        with self._drawing():
            for block in range(self.n_blocks):
                self._answer(block, lambda plan: of_plan[id(plan)])
                self._process(block)

    def tasks_of(self, key: UnitKey) -> Iterator[PreparedTask]:
        """The tasks of a unit."""
        return iter(self._units[key].tasks.values())

    def asked(self) -> list[Any]:
        """The requests of all blocks, repeated ones several times; the order never changes."""
        return [instance for plan in self._in_order() for instance in plan.instances]

    def token_counts(self) -> NDArray[np.int64]:
        """Number of scored tokens of each of :meth:`asked`, (R,)."""
        return np.concatenate([self._model.token_counts(plan) for plan in self._in_order()])

    def token_log_probabilities(self) -> NDArray[np.float32]:
        """Log-probability that the model as it is gives each scored token, in order, (T,)."""
        with self._drawing(), self._inference():
            found = [self._model.token_log_probabilities(plan) for plan in self._in_order()]
        return np.concatenate(found)

    def _in_order(self) -> Iterator[ForwardPlan]:
        return (plan for plans in self._plans.values() for plan in plans)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Go on with the generators of this scoring, and keep their states."""
        with random_state(self._state), quiet():
            yield
            self._state = RandomState.current()

    @contextmanager
    def _inference(self) -> Iterator[None]:
        model = self._model
        if model.model.training:
            model.model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(device_type=model.device.type, enabled=False),
        ):
            yield

    def _answer(self, block: int, answer: Callable[[ForwardPlan], Sequence[Any]]) -> None:
        for kind, requests in self._requests[block].items():
            answers = answer(self._plans[kind][block])
            for (task, instance), given in zip(requests, answers, strict=True):
                instance.resps.append(given)
                task.broken = task.broken or _is_nan(given)

    def _process(self, block: int) -> None:
        for task in self._tasks:
            task.process(block)

    def value(
        self, key: UnitKey, metric: str, filter_name: str, *, blocks: Blocks = None
    ) -> float:
        """Aggregated metric of what was scored; NaN if the model answered with NaN.

        Args:
            key: The unit.
            metric: The metric.
            filter_name: Its filter.
            blocks: Only the documents of these blocks.

        Raises:
            TaskError: If the task does not give the metric.
        """
        unit = self._units[key]
        if unit.broken:
            return math.nan
        if unit.group is None:
            return unit.task.value(metric, self._given(unit, metric, filter_name, blocks))
        aggregate = unit.group.aggregate(self._leaf_values(unit, metric, blocks))
        if f"{metric},{filter_name}" not in aggregate:
            given = sorted({f"{m},{f}" for t in unit.tasks.values() for m, f in t.raw(blocks)})
            raise TaskError(
                f"{unit.spec.where}: no task of the group gives {metric},{filter_name}, "
                f"only {', '.join(given)}"
            )
        return float(aggregate[f"{metric},{filter_name}"])

    def table(self, key: UnitKey, metric: str, filter_name: str) -> ItemTable | None:
        """Documents behind :meth:`value`; of a group those of its tasks, one after another."""
        unit = self._units[key]
        if unit.broken:
            return None
        if unit.group is None:
            return unit.task.table(metric, self._given(unit, metric, filter_name, None))
        tables = [task.table(metric, raw) for task, raw in self.leaves(key, metric, filter_name)]
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
        values = self._leaf_values(unit, metric, None)
        for name, task in unit.tasks.items():
            raw = task.raw(None).get((metric, filter_name))
            if raw is None:
                continue
            table = task.table(metric, raw)
            error = math.nan if table is None else standard_error(table)
            if not math.isfinite(error):
                return math.nan
            values[name][f"{metric}_stderr,{filter_name}"] = error
        if unit.broken:
            return math.nan
        pooled = unit.group.aggregate(values).get(f"{metric}_stderr,{filter_name}", "N/A")
        return math.nan if pooled == "N/A" else float(pooled)

    def leaves(
        self, key: UnitKey, metric: str, filter_name: str
    ) -> list[tuple[PreparedTask, list[Any]]]:
        """The tasks behind :meth:`value` that give the metric, and what their documents gave."""
        unit = self._units[key]
        if unit.group is None:
            return [(unit.task, self._given(unit, metric, filter_name, None))]
        return [
            (task, raw)
            for task in unit.tasks.values()
            if (raw := task.raw(None).get((metric, filter_name)))
        ]

    def shares(self, key: UnitKey, metric: str, sizes: Sequence[int]) -> list[float]:
        """Share of each of :meth:`leaves`, of so many documents, in a mean over them."""
        group = self._units[key].group
        if group is not None and not _by_size(group, metric):
            sizes = [1] * len(sizes)
        return [size / sum(sizes) for size in sizes]

    def n_documents(self, key: UnitKey, *, blocks: Blocks = None) -> int:
        """Number of documents of a unit in some blocks."""
        chosen = range(self.n_blocks) if blocks is None else blocks
        return sum(len(t.blocks[b]) for t in self._units[key].tasks.values() for b in chosen)

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
                "requests": sum(1 for b in range(self.n_blocks) for _ in task.requests(b)),
            }
            for name, task in self._units[key].tasks.items()
        ]

    def requests(self) -> dict[str, int]:
        """Number of requests by kind."""
        counts: dict[str, int] = {}
        for plan in self._in_order():
            counts[plan.kind] = counts.get(plan.kind, 0) + len(plan.instances)
        return counts

    def forward_passes(self) -> int:
        """Batches of one scoring, generation not counted."""
        return sum(len(plan.passes) for plans in self._plans.values() for plan in plans)

    def samples(self) -> bool:
        """Whether any text is sampled."""
        return any(lm_eval_tasks.is_sampled(instance) for instance in self.asked())

    def writers(self) -> dict[str, int]:
        """Number of texts by what writes them."""
        own = [p is not None for plan in self._in_order() for p in plan.prompts]
        counts = {self._model.writer: sum(own), "lm-eval": len(own) - sum(own)}
        return {writer: count for writer, count in counts.items() if count}

    def digest(self) -> str:
        """Hash of documents, requests, token ids and what turns answers into scores."""
        return digest(
            [unit.content() for unit in self._units.values()]
            + [self._model.content(plan) for plan in self._in_order()]
        )

    @property
    def _tasks(self) -> Iterator[PreparedTask]:
        return (task for unit in self._units.values() for task in unit.tasks.values())

    def _requests_of(self, block: int) -> dict[RequestKind, list[tuple[PreparedTask, Any]]]:
        found: dict[RequestKind, list[tuple[PreparedTask, Any]]] = {}
        for unit in self._units.values():
            for task in unit.tasks.values():
                for instance in task.requests(block):
                    kind = RequestKind.of(instance, unit.key.settings)
                    found.setdefault(kind, []).append((task, instance))
        return found

    def _leaf_values(self, unit: Unit, metric: str, blocks: Blocks) -> dict[str, dict[str, Any]]:
        """lm-eval's result table, the rows of a group's tasks and of one metric only."""
        table = {}
        for name, task in unit.tasks.items():
            raw = task.raw(blocks)
            if not raw and blocks is not None:
                continue  # a small task has no document in some blocks
            table[name] = {
                "sample_len": max(map(len, raw.values()), default=0),
                **{f"{m},{f}": task.value(m, raw[m, f]) for m, f in raw if m == metric},
            }
        return table

    def _given(self, unit: Unit, metric: str, filter_name: str, blocks: Blocks) -> list[Any]:
        raw = unit.task.raw(blocks)
        if (metric, filter_name) not in raw:
            given = ", ".join(sorted({m for m, _ in raw}))
            raise TaskError(f"{unit.spec.where}: gives no metric {metric!r}, only {given}")
        return raw[metric, filter_name]


def _is_nan(answer: Any) -> bool:
    value = answer[0] if isinstance(answer, tuple) else answer
    return isinstance(value, float) and math.isnan(value)


def _by_size(group: Any, metric: str) -> bool:
    return all(a.weight_by_size for a in group.aggregate_metric_list if a.metric == metric)
