"""lm-eval's requests for texts as prompts of an engine, and its tokens as lm-eval's texts."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from optuna_demix.errors import TaskError
from optuna_demix.scoring.generation import Arguments, GenerationEngine, Progress, Prompt

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

_log = logging.getLogger(__name__)


class Texts:
    """Texts that an engine writes for lm-eval's model.

    Truncation, decoding and cutting at stop strings are lm-eval's own.

    Args:
        lm: lm-eval's model.
        engine: What writes; ``None`` to leave all to lm-eval.
        progress: Counts the tokens that the engine writes.
    """

    def __init__(self, lm: HFLM, engine: GenerationEngine | None, progress: Progress) -> None:
        self._lm, self._engine, self._progress = lm, engine, progress
        self._said: set[str] = set()

    @property
    def writer(self) -> str:
        """Name of the engine."""
        return "none" if self._engine is None else str(self._engine.describe()["engine"])

    def weights_changed(self) -> None:
        """Forget what depends on the weights."""
        self._progress.restart()
        if self._engine is not None:
            self._engine.weights_changed()

    def writers(self, prompts: Sequence[Prompt | None]) -> list[Any]:
        """What writes each of the texts, to be hashed."""
        engine = None if self._engine is None else self._engine.describe()
        return [None if prompt is None else engine for prompt in prompts]

    def prompts(
        self, instances: Sequence[Any], think_end_token: str | int | None
    ) -> list[Prompt | None]:
        """Prompts of requests; ``None`` for those that are left to lm-eval, with a warning.

        Raises:
            TaskError: If a task asks for so many tokens that no prompt fits beside them.
        """
        for instance in instances:
            self._check_room(instance)
        if self._engine is None:
            return [None] * len(instances)
        together: dict[str, list[Any]] = {}
        for instance in instances:
            together.setdefault(repr(instance.args[1]), []).append(instance)
        made: dict[int, Prompt | None] = {}
        for alike in together.values():
            made |= self._alike(alike, think_end_token)
        self._progress.plan(prompt for prompt in made.values() if prompt is not None)
        return [made[id(instance)] for instance in instances]

    def sizes(self, instances: Sequence[Any]) -> list[tuple[int, int]]:
        """Tokens of each request's prompt, and the most that are written after it."""
        wanted = [self._most(instance) for instance in instances]
        rooms = [self._lm.max_length - most for most in wanted]
        return [
            (len(self._encode(instance.args[0], room)), most)
            for instance, room, most in zip(instances, rooms, wanted, strict=True)
        ]

    def write(self, prompts: Sequence[Prompt]) -> list[str | float]:
        """The text of each prompt as lm-eval gives it; NaN where the model answers with NaN."""
        found = self._engine.generate(prompts) if self._engine is not None else []
        self._progress.settle(prompts, found)
        return [
            math.nan if tokens is None else self._text(tokens, prompt.arguments)
            for tokens, prompt in zip(found, prompts, strict=True)
        ]

    def _alike(
        self, instances: Sequence[Any], think_end_token: str | int | None
    ) -> dict[int, Prompt | None]:
        """Prompts of requests with the same arguments, which lm-eval would batch together."""
        arguments = self._arguments(instances[0].args[1])
        reason = self._refused(instances, arguments, think_end_token)
        if reason is None:
            room = self._lm.max_length - arguments.max_tokens
            ids = [self._encode(instance.args[0], room) for instance in instances]
            if all(ids):
                return {
                    id(instance): Prompt(
                        tuple(of_it), arguments, f"{instance.task_name} {arguments}"
                    )
                    for instance, of_it in zip(instances, ids, strict=True)
                }
            reason = "a prompt has no tokens"
        for task in dict.fromkeys(instance.task_name for instance in instances):
            said = f"task {task!r}: lm-eval writes the texts: {reason}"
            if said not in self._said:
                self._said.add(said)
                _log.warning(said)
        return {id(instance): None for instance in instances}

    def _refused(
        self, instances: Sequence[Any], arguments: Arguments, think_end_token: str | int | None
    ) -> str | None:
        if think_end_token is not None:
            return "of texts with thoughts it depends on the batch where one ends"
        bos = getattr(self._lm.tokenizer, "bos_token", None)
        if len({has_bos_prefix(instance.args[0], bos) for instance in instances}) > 1:
            return "some prompts begin with the BOS token and others do not"
        return (
            "scoring.generation says so"
            if self._engine is None
            else self._engine.refuses(arguments)
        )

    def _arguments(self, given: dict[str, Any]) -> Arguments:
        others = normalize_gen_kwargs(given, self._lm.max_gen_toks)
        eos = self._lm.tok_decode(self._lm.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(others.pop("until", None), eos=eos)
        return Arguments(others.pop("max_gen_toks"), tuple(stops), others)

    def _check_room(self, instance: Any) -> None:
        longest, wanted = self._lm.max_length, self._most(instance)
        if wanted >= longest:
            raise TaskError(
                f"task {instance.task_name!r}: generates up to {wanted} tokens, which leaves no "
                f"room for a prompt in max_length {longest}; raise max_length or lower "
                "max_gen_toks in gen_kwargs or the task's generation_kwargs"
            )

    def _most(self, instance: Any) -> int:
        """How many tokens a request's text may have."""
        return int(normalize_gen_kwargs(instance.args[1], self._lm.max_gen_toks)["max_gen_toks"])

    def _encode(self, text: str, room: int) -> list[int]:
        ids, _ = self._lm.tok_batch_encode(
            [text], left_truncate_len=room, truncation=self._lm.truncation
        )
        found: list[int] = ids[0].tolist()
        return found

    def _text(self, tokens: Sequence[int], arguments: Arguments) -> str:
        return str(
            postprocess_generated_text(
                self._lm.tok_decode(tokens), stop=list(arguments.stops), think_end_token=None
            )
        )
