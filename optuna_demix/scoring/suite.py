"""``Suite``: loaded tasks whose requests are built once and scored again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from optuna_demix._progress import Report
from optuna_demix._wording import counted
from optuna_demix.scoring.digest import digest
from optuna_demix.scoring.harness import TaskSpec
from optuna_demix.scoring.harness import tasks as lm_eval_tasks
from optuna_demix.scoring.harness.confined import code_eval_stands_in, confine, runs_code
from optuna_demix.scoring.harness.processing import processed_anew
from optuna_demix.scoring.harness.quiet import quiet
from optuna_demix.scoring.harness.templates import compiled_once
from optuna_demix.scoring.prepared_task import PreparedTask, Wanted
from optuna_demix.scoring.randomness import RandomState, random_state
from optuna_demix.scoring.units import RequestKind, Unit
from optuna_demix.scoring.workload import Text, Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix.scoring.harness import Catalog, ForwardPlan, PreparedModel
    from optuna_demix.scoring.units import UnitKey


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
        screened: Units whose texts are put off, see :meth:`run_cheaply`.
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
        screened: Collection[UnitKey] = (),
        report: Report | None = None,
        sandboxed: bool = True,
    ) -> None:
        say = report or Report()
        self._model = model
        self._screened = screened
        self.n_blocks = n_blocks
        # lm-eval's seeds, and nothing that another run has drawn: every host has these documents.
        start = RandomState.seeded(*lm_eval_tasks.STARTING_SEEDS)
        metric = code_eval_stands_in() if sandboxed else nullcontext()
        with random_state(start), processed_anew(), compiled_once(), quiet(), metric:
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
        self.run_cheaply(seed)
        self.run_screened()

    def run_cheaply(self, seed: int | None = None) -> None:
        """Score the model as it is on everything but the texts of screened units."""
        self.reset(seed)
        for block in range(self.n_blocks):
            self.run_block(block)

    def run_screened(self) -> None:
        """Score the same model on these texts as well."""
        for block in range(self.n_blocks) if self._screened else ():
            with self._drawing():
                with self._inference():
                    self._answer(block, self._model.answer, screened=True)
                self._process(block, screened=True)

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

    def unit(self, key: UnitKey) -> Unit:
        """A unit, and what was scored of it."""
        return self._units[key]

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
        with random_state(self._state), compiled_once(), quiet():
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

    def _answer(
        self,
        block: int,
        answer: Callable[[ForwardPlan], Sequence[Any]],
        *,
        screened: bool = False,
    ) -> None:
        for kind, requests in self._requests[block].items():
            if kind.screened is not screened:
                continue
            answers = answer(self._plans[kind][block])
            for (task, instance), given in zip(requests, answers, strict=True):
                instance.resps.append(given)
                task.broken = task.broken or _is_nan(given)

    def _process(self, block: int, *, screened: bool = False) -> None:
        for key, unit in self._units.items():
            is_screened = key in self._screened
            for task in unit.tasks.values() if is_screened or not screened else ():
                task.process(block, gold=not screened, metrics=screened or not is_screened)

    def requests(self) -> dict[str, int]:
        """Number of requests by kind."""
        counts: dict[str, int] = {}
        for plan in self._in_order():
            counts[plan.kind] = counts.get(plan.kind, 0) + len(plan.instances)
        return counts

    def workload(self) -> Workload:
        """What the model is given for one scoring."""
        plans = [(kind, plan) for kind, found in self._plans.items() for plan in found]
        with quiet():
            texts = tuple(
                Text(prompt, most, kind.screened)
                for kind, plan in plans
                if plan.kind == "generate_until"
                for prompt, most in self._model.text_sizes(plan)
            )
        passes = tuple(each.shape for _, plan in plans for each in plan.passes)
        return Workload(self.requests(), passes, texts)

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
                    kind = RequestKind.of(
                        instance, unit.key.settings, screened=unit.key in self._screened
                    )
                    found.setdefault(kind, []).append((task, instance))
        return found


def _is_nan(answer: Any) -> bool:
    value = answer[0] if isinstance(answer, tuple) else answer
    return isinstance(value, float) and math.isnan(value)
