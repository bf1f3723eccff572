"""Batches of token ids, laid out once.

The layout is that of lm-eval's ``HFLM._loglikelihood_tokens`` with a fixed batch size: requests
that differ only in their last token share one row, rows are sorted by length, descending, then by
token ids, and padded on the right with zeros. Rounding depends on what else is in a batch, so the
layout is part of the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from optuna_demix.scoring.forward.readout import Reading, Readout, ReadoutBuilder

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation, both non-empty."""


@dataclass(frozen=True)
class BatchRow:
    """Token ids that the model is given, and the requests it answers there.

    Attributes:
        ids: The input, at most ``max_length`` tokens: all but the last token of a request.
        longest: Tokens of the longest continuation; its predictions end the row.
        members: ``(request, continuation)`` of every request.
    """

    ids: list[int]
    longest: int
    members: tuple[tuple[int, list[int]], ...]

    @property
    def first(self) -> int:
        """The first position whose prediction is read."""
        return len(self.ids) - self.longest

    @property
    def readings(self) -> list[Reading]:
        """The requests with their positions, counted from :attr:`first`."""
        # A shorter continuation of the same row is scored at the row's first positions and
        # compared at its last ones: so does lm-eval 0.4.
        return [
            Reading(
                request,
                tokens,
                range(len(tokens)),
                range(self.longest - len(tokens), self.longest),
            )
            for request, tokens in self.members
        ]


@dataclass(frozen=True)
class Batch:
    """One forward pass and where its answers are.

    Attributes:
        inputs: Token ids, zero-padded on the right, (B, L).
        readout: Where the answers are in the flattened (B * L) predictions.
        rows: What it was laid out from.
    """

    inputs: Tensor
    readout: Readout
    rows: tuple[BatchRow, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of a row."""
        return len(self.rows), self.inputs.shape[1]

    def content(self) -> list[object]:
        """Everything that the numbers depend on, to be hashed."""
        return [
            tuple(self.inputs.shape),
            self.inputs.numpy().tobytes(),
            self.readout.content(),
        ]

    def pieces(self, size: int) -> list[Batch]:
        """The same rows in batches of at most ``size``, as wide as this one."""
        width = self.inputs.shape[1]
        return [
            lay_out(self.rows[start : start + size], width=width)
            for start in range(0, len(self.rows), size)
        ]


def share_rows(
    pairs: Sequence[Pair], *, max_length: int, first_request: int = 0
) -> list[BatchRow]:
    """Find the rows that requests need, in lm-eval's order.

    Args:
        pairs: The requests' token ids.
        max_length: Longest input of the model, in tokens; longer ones lose their left end.
        first_request: Number of ``pairs[0]`` in :attr:`BatchRow.members`.

    Returns:
        The rows, longest first.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (context, continuation) in enumerate(pairs):
        groups.setdefault((*context, *continuation[:-1]), []).append(index)

    def longest(members: list[int]) -> int:
        return max(members, key=lambda index: len(pairs[index][1]))

    def order(members: list[int]) -> tuple[int, list[int]]:
        context, continuation = pairs[longest(members)]
        return -len(context) - len(continuation), context + continuation

    rows = []
    for members in sorted(groups.values(), key=order):
        context, continuation = pairs[longest(members)]
        rows.append(
            BatchRow(
                (context + continuation)[-(max_length + 1) :][:-1],
                len(continuation),
                tuple((first_request + i, pairs[i][1]) for i in members),
            )
        )
    return rows


def plan_batches(
    pairs: Sequence[Pair], *, batch_size: int, max_length: int, first_request: int = 0
) -> list[Batch]:
    """Lay requests out as lm-eval does.

    Args:
        pairs: The requests' token ids.
        batch_size: Rows per batch, B.
        max_length: Longest input of the model, in tokens; longer ones lose their left end.
        first_request: Number of ``pairs[0]`` in :attr:`Readout.spans`.

    Returns:
        The batches, longest first.
    """
    rows = share_rows(pairs, max_length=max_length, first_request=first_request)
    return [lay_out(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def lay_out(rows: Sequence[BatchRow], *, width: int | None = None) -> Batch:
    """Make one batch.

    Args:
        rows: Its rows.
        width: Tokens of a row, L; ``None`` for as many as the longest has.
    """
    width = max(len(row.ids) for row in rows) if width is None else width
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    builder = ReadoutBuilder()
    for line, row in enumerate(rows):
        inputs[line, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        start = line * width
        builder.add(
            range(start + row.first, start + len(row.ids)),
            row.readings,
        )
    return Batch(inputs, builder.finish(), tuple(rows))
