"""Batches of token ids, laid out once, and the log-likelihoods that a model gives them.

The layout is that of lm-eval's ``HFLM._loglikelihood_tokens`` with a fixed batch size: requests
that differ only in their last token share one row, rows are sorted by length, descending, then by
token ids, and padded on the right with zeros. Rounding depends on what else is in a batch, so the
layout is part of the numbers.

What differs is where the work is done. lm-eval takes the log-softmax of every position and
synchronises with the device for every request; here it is taken of the positions that are scored,
into memory that is reused, and answers are fetched once at the end. Log-softmax is row by row and
every sum runs over the same values in the same order, hence the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation, both non-empty."""

# Every run of scored tokens starts at a multiple of this many elements, as a freshly allocated
# tensor would: CUDA reductions split a run by the alignment of its first element.
_ALIGNMENT = 16

# CUDA's log-softmax reads rows in packets of this many bytes. Where a row is no multiple of it,
# the order of its sums depends on the row's place, so rows must stay where they are.
_PACKET_BYTES = 16


@dataclass(frozen=True)
class Batch:
    """One forward pass and where its answers are.

    Attributes:
        inputs: Token ids, zero-padded on the right, (B, L).
        rows: The positions of the flattened (B * L) logits that any request reads, (R,).
        picked: For every scored token, the entry of ``rows`` that predicts it, (T,).
        leading: The same for the comparison with the most likely token, (T,).
        tokens: The scored tokens, (T,).
        spans: ``(request, start, length)`` of every request's run within (T,).
    """

    inputs: Tensor
    rows: Tensor
    picked: Tensor
    leading: Tensor
    tokens: Tensor
    spans: tuple[tuple[int, int, int], ...]


def plan_batches(
    pairs: Sequence[Pair], *, batch_size: int, max_length: int, first_request: int = 0
) -> list[Batch]:
    """Lay requests out as lm-eval does.

    Args:
        pairs: The requests' token ids.
        batch_size: Rows per batch, B.
        max_length: Longest input of the model, in tokens; longer ones lose their left end.
        first_request: Number of ``pairs[0]`` in :attr:`Batch.spans`.

    Returns:
        The batches, longest first.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (context, continuation) in enumerate(pairs):
        groups.setdefault((*context, *continuation[:-1]), []).append(index)

    def longest(members: list[int]) -> int:
        return max(members, key=lambda index: len(pairs[index][1]))

    def order(members: list[int]) -> tuple[int, list[int]]:
        context, continuation = pairs[longest(members)]
        return -len(context) - len(continuation), context + continuation

    ordered = sorted(groups.values(), key=order)
    return [
        _lay_out(
            [
                (pairs[longest(members)], [(first_request + i, pairs[i][1]) for i in members])
                for members in ordered[start : start + batch_size]
            ],
            max_length=max_length,
        )
        for start in range(0, len(ordered), batch_size)
    ]


def _lay_out(
    groups: Sequence[tuple[Pair, list[tuple[int, list[int]]]]], *, max_length: int
) -> Batch:
    """Make one batch of ``(row, [(request, continuation), ...])`` groups."""
    kept = [
        (context + continuation)[-(max_length + 1) :][:-1] for (context, continuation), _ in groups
    ]
    width = max(map(len, kept))
    inputs = torch.zeros(len(kept), width, dtype=torch.long)
    rows: list[int] = []
    picked: list[int] = []
    leading: list[int] = []
    tokens: list[int] = []
    spans: list[tuple[int, int, int]] = []
    for line, (ids, ((_, longest), members)) in enumerate(zip(kept, groups, strict=True)):
        inputs[line, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        first = len(rows)
        end = line * width + len(ids)
        rows.extend(range(end - len(longest), end))
        for request, continuation in members:
            length = len(continuation)
            padding = [0] * (-len(tokens) % _ALIGNMENT)
            for run in (picked, leading, tokens):
                run.extend(padding)
            spans.append((request, len(tokens), length))
            # A shorter continuation of the same row is scored at the row's first positions and
            # compared at its last ones: so does lm-eval 0.4.
            picked.extend(range(first, first + length))
            leading.extend(range(len(rows) - length, len(rows)))
            tokens.extend(continuation)
    picked_rows = torch.tensor(picked)
    return Batch(
        inputs=inputs,
        rows=torch.tensor(rows),
        picked=picked_rows,
        leading=picked_rows if leading == picked else torch.tensor(leading),
        tokens=torch.tensor(tokens),
        spans=tuple(spans),
    )


class _Scratch:
    """Memory that one batch after another is computed in.

    Fresh memory for tens of megabytes is given back to the system and faulted in again on every
    batch, which on a CPU costs more than the log-softmax itself.
    """

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of ``shape``, with the dtype and device of ``like``."""
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != like.dtype:
            self._flat[name] = flat = like.new_empty(size)
        return flat[:size].view(shape)


def score_batches(
    logits_of: Callable[[Tensor], Tensor],
    batches: Sequence[Batch],
    *,
    count: int,
    device: torch.device,
    greedy: bool,
) -> tuple[list[float], list[bool]]:
    """Run the batches through a model.

    Args:
        logits_of: The model: token ids (B, L) to logits (B, L, V).
        batches: What :func:`plan_batches` made.
        count: Number of requests in all batches.
        device: Where the model is.
        greedy: Also compare every scored token with the most likely one.

    Returns:
        Of every request the log-likelihood of its continuation, and whether the continuation is
        the greedy one (all ``False`` without ``greedy``).
    """
    scratch = _Scratch()
    # The logits live as an argument only: no second batch of them beside the next one's.
    answers = [
        _answer(batch, logits_of(batch.inputs.to(device)), scratch, greedy=greedy)
        for batch in batches
    ]
    likelihoods = [0.0] * count
    matches = [False] * count
    for batch, (sums, hits) in zip(batches, answers, strict=True):
        equal = None if hits is None else hits.cpu().numpy()
        for (request, start, n), value in zip(batch.spans, sums.tolist(), strict=True):
            likelihoods[request] = value
            if equal is not None:
                matches[request] = bool(equal[start : start + n].all())
    return likelihoods, matches


def _answer(
    batch: Batch, logits: Tensor, scratch: _Scratch, *, greedy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-likelihood of every request of a batch, and of every token whether it is the likeliest.

    Returns:
        (requests,) and (T,), the latter only with ``greedy``; both still on the device.
    """
    rows, picked, leading, tokens = (
        part.to(logits.device, non_blocking=True)
        for part in (batch.rows, batch.picked, batch.leading, batch.tokens)
    )
    table, at = _log_probabilities(logits, rows, scratch)  # (R or B * L, V), (R,)
    scored = table[at[picked], tokens]  # (T,)
    # One sum per request over a run of its own, as lm-eval does: a sum over a padded matrix would
    # add in another order.
    sums = torch.stack([scored[start : start + n].sum() for _, start, n in batch.spans])
    # argmax gives the first of equals, as in lm-eval.
    return sums, (table.argmax(dim=-1)[at[leading]] == tokens if greedy else None)


def _log_probabilities(logits: Tensor, rows: Tensor, scratch: _Scratch) -> tuple[Tensor, Tensor]:
    """Log-softmax of the wanted rows, and where each of ``rows`` is in it."""
    vocabulary = logits.shape[-1]
    flat = logits.reshape(-1, vocabulary)  # (B * L, V)
    movable = (
        logits.device.type == "cpu" or vocabulary * logits.element_size() % _PACKET_BYTES == 0
    )
    if movable and 2 * len(rows) < len(flat):
        chosen = scratch.take("chosen", (len(rows), vocabulary), flat)
        torch.index_select(flat, 0, rows, out=chosen)
        flat, at = chosen, torch.arange(len(rows), device=rows.device)
    else:
        at = rows
    table = scratch.take("table", tuple(flat.shape), flat)
    torch.log_softmax(flat, -1, out=table)
    return table, at
