"""``GreedyLoop``: greedy search over rows that leave when they end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix.scoring.forward import no_room, or_none_without_memory
from optuna_demix.scoring.generation import refusals
from optuna_demix.scoring.generation.cache import Beginning, RowCache, size_of
from optuna_demix.scoring.generation.engine import Arguments, Prompt
from optuna_demix.scoring.generation.passes import go_on, read_prompts
from optuna_demix.scoring.generation.schedule import Group, Queue, common, grouped, without
from optuna_demix.scoring.generation.stops import StopWatch, stop_watch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_UNSHARED = 8  # tokens that may be read again for each row rather than a beginning anew
_MOST_BEGINNINGS = 64
_UNKNOWN = "its configuration has not been read"

Found = dict[Prompt, "list[int] | None"]


@dataclass
class _Row:
    """A text that is being written."""

    prompt: Prompt
    watch: StopWatch
    beginning: Beginning | None = None  # that the row has not itself
    tokens: list[int] = field(default_factory=list)
    waiting: bool = False

    @property
    def length(self) -> int:
        """Tokens whose keys and values are kept: all but the last."""
        return len(self.prompt.ids) + len(self.tokens) - 1

    @property
    def own(self) -> int:
        """How many of these the row itself keeps."""
        return self.length - size_of(self.beginning)


class GreedyLoop:
    """Greedy search over the live model, one token of every row at a time.

    A :class:`~optuna_demix.scoring.generation.engine.GenerationEngine`. In float32 the texts are
    those of transformers' ``generate``, unless two tokens are as likely up to rounding.

    Args:
        model: A causal language model on its device; its weights may change in place.
        tokenizer: Its tokenizer, with a padding token.
        rows: Texts written at the same time, fewer after memory has run out.
        autocast: What forward passes run under.
        wrote: Called with the number of new tokens after each step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        rows: int,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        wrote: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._model, self._tokenizer, self._rows = model, tokenizer, rows
        self._autocast, self._wrote = autocast, wrote
        self._beginnings: dict[str, tuple[tuple[int, ...], Beginning]] = {}
        self._watches: dict[tuple[str, ...], StopWatch] = {}
        self._ends: frozenset[int] = frozenset()
        self._tried = self._keeps_once = False
        self._model_refuses: str | None = _UNKNOWN

    def refuses(self, arguments: Arguments) -> str | None:
        """Why it cannot write so, or ``None`` if it can.

        The first time, a few tokens are tried with the weights that the model has.

        Raises:
            TaskError: If the model answers them with NaN.
        """
        if self._model_refuses is _UNKNOWN:
            self._model_refuses = refusals.of_model(self._model, self._tokenizer)
        said = self._model_refuses or refusals.of_arguments(
            arguments, self._model, self._tokenizer
        )
        if said is None and not self._tried:
            self._model_refuses, self._tried = self._try(), True
        return said or self._model_refuses

    def _try(self) -> str | None:
        self._model.eval()  # type: ignore[no-untyped-call]
        with torch.inference_mode(), self._autocast():
            said = refusals.of_numbers(self._model, lambda ids: self._model(ids).logits, once=True)
            self._keeps_once = said is None
            if self._keeps_once:
                return None
            _log.info("what prompts begin with alike is copied to each row: %s", said)
            return refusals.of_numbers(self._model, lambda ids: self._model(ids).logits)

    def weights_changed(self) -> None:
        """Forget the beginnings that were computed."""
        self._beginnings.clear()

    def describe(self) -> dict[str, Any]:
        """What the texts depend on beside weights, prompts and arguments."""
        return {"engine": "greedy loop", "version": 2}

    def generate(self, prompts: Sequence[Prompt]) -> list[list[int] | None]:
        """Go on with prompts.

        What prompts of a group begin with stays computed until the weights change.

        Args:
            prompts: Prompts whose arguments are not refused.

        Returns:
            Of every prompt the new tokens, an end token included; ``None`` for NaN.

        Raises:
            TaskError: If not even one prompt fits into memory.
        """
        self._ends = refusals.end_tokens(self._model)
        groups = grouped(prompts)
        found: Found = {}
        with torch.inference_mode(), self._autocast():
            while or_none_without_memory(partial(self._write, groups, found)) is None:
                self._make_room(groups, found)
        return [None if (text := found[prompt]) is None else [*text] for prompt in prompts]

    def _make_room(self, groups: Iterable[Group], found: Found) -> None:
        self._beginnings.clear()
        if self._rows == 1:
            left = [prompt for group in without(groups, found) for prompt in group.prompts]
            raise no_room(max(len(p.ids) + p.arguments.max_tokens for p in left))
        self._rows //= 2
        _log.warning("out of memory while generating: going on with %d rows", self._rows)

    def _write(self, groups: Iterable[Group], found: Found) -> bool:
        """Write all texts that are not found yet."""
        queue = Queue(list(without(groups, found)), self._rows)
        cache = RowCache(self._rows)
        rows: list[_Row] = []
        while queue or rows:
            joining, shared = queue.joining(len(rows))
            if joining:
                logits, front = self._read(cache, joining, shared, first=len(rows))
                new = [_Row(prompt, self._watch(prompt.arguments), front) for prompt in joining]
                first, rows = len(rows), [*rows, *new]
            else:
                tokens, lengths = [row.tokens[-1] for row in rows], [row.length for row in rows]
                fronts = [row.beginning for row in rows]
                logits, first = go_on(self._model, cache, tokens, lengths, fronts), 0
            self._wrote(len(rows) - first)
            self._take(cache, rows, first, logits, found)
        return True

    def _read(
        self, cache: RowCache, prompts: Sequence[Prompt], shared: Sequence[int], *, first: int
    ) -> tuple[Tensor, Beginning | None]:
        """Read prompts into free rows: logits (B, V), and what is kept in front of the rows."""
        beginning = self._beginning(prompts[0].group, tuple(shared)) if shared else None
        logits = read_prompts(
            self._model,
            cache,
            [prompt.ids for prompt in prompts],
            first=first,
            beginning=beginning,
            once=self._keeps_once,
        )
        return logits, beginning if self._keeps_once else None

    def _beginning(self, group: str, shared: tuple[int, ...]) -> Beginning:
        """Keys and values of what the prompts of a group begin with."""
        if group in self._beginnings:  # of an earlier block, whose prompts may share less or more
            ids, beginning = self._beginnings[group]
            kept = common(ids, shared)
            if kept >= len(shared) - _UNSHARED and kept > 0:
                if kept < len(ids):
                    beginning = [(keys[:, :kept], values[:, :kept]) for keys, values in beginning]
                    self._beginnings[group] = ids[:kept], beginning
                return beginning
        alone = RowCache(1)
        read_prompts(self._model, alone, [shared], first=0)
        if len(self._beginnings) >= _MOST_BEGINNINGS:
            self._beginnings.pop(next(iter(self._beginnings)))
        self._beginnings[group] = shared, alone.beginning(len(shared))
        return self._beginnings[group][1]

    def _take(
        self, cache: RowCache, rows: list[_Row], first: int, logits: Tensor, found: Found
    ) -> None:
        """Append the likeliest token to the rows from ``first`` on; rows that end leave."""
        chosen = logits.argmax(dim=-1)  # (B,); NaN counts as the largest
        broken = logits.gather(1, chosen[:, None]).isnan()[:, 0]
        tokens, are_broken = torch.stack([chosen, broken.long()]).tolist()
        for number in reversed(range(first, len(rows))):
            row = rows[number]
            row.tokens.append(tokens[number - first])
            if are_broken[number - first]:
                found[row.prompt] = None
                cache.clear(number)
            elif self._has_ended(row):
                found[row.prompt] = row.tokens
            else:
                continue
            last = rows.pop()
            if last is not row:
                rows[number] = last
                cache.move(len(rows), number, last.own)

    def _has_ended(self, row: _Row) -> bool:
        if row.tokens[-1] in self._ends or len(row.tokens) >= row.prompt.arguments.max_tokens:
            return True
        ended, row.waiting = row.watch.ended(row.tokens, waiting=row.waiting)
        return ended

    def _watch(self, arguments: Arguments) -> StopWatch:
        stops = arguments.stops
        if stops not in self._watches:
            self._watches[stops] = stop_watch(self._tokenizer, stops)
        return self._watches[stops]
