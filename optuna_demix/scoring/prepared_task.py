"""Loaded tasks with their requests and answers, and the units that benchmarks are read from."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

from optuna_demix.errors import TaskError
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.gold import GOLD_METRIC, gold_request, gold_value
from optuna_demix.scoring.harness import tasks as lm_eval_tasks
from optuna_demix.scoring.harness.reasons import reason
from optuna_demix.scoring.harness.task_specs import NO_FILTER
from optuna_demix.scoring.items import ItemTable, tabulate
from optuna_demix.scoring.sandbox import SANDBOX_VERSION, CallError, LostError, Sandbox
from optuna_demix.scoring.settings import TaskSettings

_log = logging.getLogger(__name__)

Values: TypeAlias = Mapping[tuple[str, str], Any]
"""What one document gives, by metric and filter."""
Blocks: TypeAlias = "Sequence[int] | None"
"""Blocks of documents; ``None`` for all that were scored."""


@dataclass(frozen=True)
class Wanted:
    """What benchmarks read of a task.

    Attributes:
        filters: The filters of lm-eval's own metrics; empty if none of them is read, ``None`` for
            all.
        gold: Whether bits per byte of the right answer are read.
        answer: Field of the documents that holds the right answer; ``None`` for the task's target.
        ks: Of the ``pass@k`` that are read.
    """

    filters: frozenset[str] | None
    gold: bool
    answer: str | None = None
    ks: frozenset[int] = frozenset()

    @property
    def of_a_group(self) -> Wanted:
        """What is read of the tasks of a group, of which this is read."""
        return replace(self, filters=None)  # lm-eval's own code makes a group's metrics


@dataclass
class PreparedTask:
    """A loaded task with its requests, and what the last scoring made of it.

    Attributes:
        task: lm-eval's object.
        wanted: What is read of it.
        documents: Every document with its requests, in order.
        gold: Of every document the request for its right answer; empty if it is not wanted.
        blocks: Of each block of a scoring, the numbers of its documents, ascending.
        values: What each document gave; ``None`` where it has not been scored.
        broken: Whether the model answered with NaN.
        sandbox: Where its metrics run, if they run code that the model wrote.
        lost: Why documents got no answer from there.
    """

    task: Any
    wanted: Wanted
    documents: list[tuple[Any, list[Any]]] = field(default_factory=list)
    gold: list[Any] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    values: list[Values | None] = field(default_factory=list)
    broken: bool = False
    sandbox: Sandbox | None = None
    lost: dict[int, str] = field(default_factory=dict)

    def configure(self, settings: TaskSettings, *, seed: int, where: str) -> None:
        """Set what ``simple_evaluate`` would set, and what it cannot.

        Raises:
            TaskError: If answers would be repeated for nothing, or too few for a ``pass@k``.
        """
        lm_eval_tasks.configure(self.task, settings, seed=seed)
        lm_eval_tasks.repeat_answers(self.task, settings.repeats, self.wanted.ks, where=where)

    def build(
        self, settings: TaskSettings, *, chat: Callable[..., str] | None, where: str
    ) -> None:
        """Build the requests, few-shot examples included, once and for all.

        Args:
            settings: How.
            chat: Makes a prompt of a chat's messages, where prompts are chats.
            where: What an error says the task is.
        """
        lm_eval_tasks.build_requests(self.task, settings, chat=chat, where=where)
        by_document: dict[Any, list[Any]] = {}
        for instance in self.task.instances:
            by_document.setdefault(instance.doc_id, []).append(instance)
        for instances in by_document.values():
            self.documents.append((instances[0].doc, sorted(instances, key=lambda i: i.idx)))
        if self.wanted.gold:
            self.gold = [
                gold_request(self.task, *document, answer=self.wanted.answer)
                for document in self.documents
            ]

    @property
    def reads_metrics(self) -> bool:
        """Whether any of lm-eval's own metrics is read."""
        return self.wanted.filters is None or bool(self.wanted.filters)

    def requests(self, block: int) -> Iterator[Any]:
        """The requests of a block that must be answered, repeated ones several times."""
        for number in self.blocks[block]:
            asked = self.documents[number][1] if self.reads_metrics else []
            for instance in asked:
                yield from repeat(instance, instance.repeats)
            if self.gold and all(self.gold[number] is not instance for instance in asked):
                yield self.gold[number]

    def reset(self) -> None:
        """Forget the last answers."""
        self.values, self.broken = [None] * len(self.documents), False
        self.lost.clear()
        for instance in (*self.task.instances, *self.gold):
            instance.resps, instance.filtered_resps = [], {}

    def process(self, block: int, *, gold: bool = True, metrics: bool = True) -> None:
        """Turn the answers of a block into one value per metric, filter and document.

        Args:
            block: The block.
            gold: Whether right answers are answered.
            metrics: Whether all other requests are.
        """
        if self.broken or not self.blocks[block]:
            return
        filters = self._filter(block) if metrics and self.reads_metrics else []
        process = partial(self._process_document, filters, gold=gold)
        if self.sandbox is None or not filters:
            found = [process(number) for number in self.blocks[block]]
        else:  # each waits for the sandbox most of the time
            with ThreadPoolExecutor(self.sandbox.lanes) as threads:
                found = list(threads.map(process, self.blocks[block]))
        for number, values in zip(self.blocks[block], found, strict=True):
            self.values[number] = {**(self.values[number] or {}), **values}
        self._count_lost(block)

    def _process_document(self, filters: Sequence[str], number: int, *, gold: bool) -> Values:
        # A function of the task's author may write into the document; lm-eval's own does not.
        authored = lm_eval_tasks.has_own_metrics(self.task)
        document, instances = self.documents[number]
        values: dict[tuple[str, str], Any] = {}
        try:
            values |= {
                (metric, name): value
                for name in filters
                for metric, value in self.task.process_results(
                    copy.deepcopy(document) if authored else document,
                    [instance.filtered_resps[name] for instance in instances],
                ).items()
            }
        except LostError as error:
            self.lost[number] = str(error)
        except (CallError, TypeError, AttributeError) as error:
            if self.sandbox is None:
                raise
            raise TaskError(
                f"task {self.task.task_name!r}, document {number}: its metric fails in the "
                f"sandbox: {reason(error)}"
            ) from None
        if gold and self.gold:
            values[GOLD_METRIC, NO_FILTER] = gold_value(self.gold[number])
        return values

    def _count_lost(self, block: int) -> None:
        """Count documents whose metric gave no answer as the worst, where there is a worst."""
        lost = [number for number in self.blocks[block] if number in self.lost]
        if not lost:
            return
        filters = self.documents[lost[0]][1][0].filtered_resps
        named = [(metric, name) for metric in self.task.aggregation() for name in filters]
        seen = dict.fromkeys(key for values in self.values for key in values or ())
        known = [key for key in seen if key != (GOLD_METRIC, NO_FILTER)] or named
        higher = self.task.higher_is_better()
        worst = {key: math.nan if higher.get(key[0]) is False else 0.0 for key in known}
        for number in lost:
            self.values[number] = {**worst, **(self.values[number] or {})}
        _log.warning(
            "task %r: %d of %d documents got no answer from their metric and count as 0; one: %s",
            self.task.task_name,
            len(lost),
            len(self.blocks[block]),
            self.lost[lost[0]],
        )

    def _filter(self, block: int) -> list[str]:
        """Filter the answers of a block; the names of the filters that are read."""
        instances = [i for number in self.blocks[block] for i in self.documents[number][1]]
        lm_eval_tasks.apply_filters(self.task, instances)
        wanted = self.wanted.filters
        return [name for name in instances[0].filtered_resps if wanted is None or name in wanted]

    def raw(self, blocks: Blocks) -> dict[tuple[str, str], list[Any]]:
        """The values of the scored documents, by metric and filter, in the documents' order."""
        numbers = sorted(n for block in blocks for n in self.blocks[block]) if blocks else ()
        found = self.values if blocks is None else [self.values[number] for number in numbers]
        lists: dict[tuple[str, str], list[Any]] = {}
        for values in found:
            for key, value in (values or {}).items():
                lists.setdefault(key, []).append(value)
        return lists

    def value(self, metric: str, raw: list[Any]) -> float:
        """Aggregate of a metric over documents."""
        aggregate, _ = lm_eval_tasks.aggregation(self.task, metric)
        try:
            return float(aggregate(raw))
        except OverflowError:  # a perplexity beyond floating point
            return math.inf

    def table(self, metric: str, raw: list[Any]) -> ItemTable | None:
        """The documents behind :meth:`value`."""
        _, name = lm_eval_tasks.aggregation(self.task, metric)
        return tabulate(raw, name)

    def content(self) -> list[Any]:
        """All that its values depend on beside the answers, to be hashed."""
        gold = [[request] for request in self.gold] or [[]] * len(self.documents)
        content = [
            [document, [[i.request_type, i.arguments, i.repeats] for i in (*instances, *right)]]
            for (document, instances), right in zip(self.documents, gold, strict=True)
        ]
        confined = [] if self.sandbox is None else [["sandbox", SANDBOX_VERSION]]
        return [lm_eval_tasks.settings(self.task), self.blocks, digest(content), *confined]
