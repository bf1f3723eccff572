"""Requests that begin alike, packed so that their common beginning is computed once.

All inputs of a plan form a tree: few-shot header, context, continuations. A row of a packed pass
holds a part of it in depth-first order, children behind their parent. A token attends to its
ancestors alone and its position is its depth, so that it sees exactly what it would see in a row
of its own. With tokens in this order the descendants of one are the tokens that follow it up to
some end, and the mask follows from these ends.

Where a part of the tree is cut off to make a row of its own, the tokens above it are computed
once more; cuts are placed so that the whole plan costs least.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_demix.scoring.forward.readout import Reading, Readout, ReadoutBuilder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from optuna_demix.scoring.forward.batches import BatchRow

_MAX_ROWS_TRIED = 4096  # inputs that one packed row is tried with


@dataclass(frozen=True)
class Tree:
    """One packed row.

    Attributes:
        ids: Tokens in depth-first order, (n,).
        depths: Number of ancestors of each, (n,).
        ends: Where the descendants of each end: the first token that is none, (n,).
        members: The requests; their positions are tokens of ``ids``.
    """

    ids: list[int]
    depths: list[int]
    ends: list[int]
    members: list[Reading]


@dataclass(frozen=True)
class PackedBatch:
    """One forward pass over packed rows.

    Attributes:
        inputs: Token ids, zero-padded on the right, (B, N).
        depths: Positions, (B, N).
        ends: Where the descendants of each token end, (B, N).
        kept: Tokens of the flattened (B * N) whose predictions are read, (R,).
        readout: Where the answers are in these R predictions.
        trees: What it was laid out from.
    """

    inputs: Tensor
    depths: Tensor
    ends: Tensor
    kept: Tensor
    readout: Readout
    trees: tuple[Tree, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of a row."""
        return len(self.trees), self.inputs.shape[1]

    def pieces(self, size: int) -> list[PackedBatch]:
        """The same rows in passes of at most ``size``."""
        return [
            lay_out_trees(self.trees[start : start + size])
            for start in range(0, len(self.trees), size)
        ]

    def mask(self, device: torch.device) -> Tensor:
        """Which token (third axis) attends to which (fourth), (B, 1, N, N)."""
        places = torch.arange(self.inputs.shape[1], device=device)
        ends = self.ends.to(device)
        return ((places[:, None] >= places) & (ends[:, None, :] > places[:, None]))[:, None]

    def content(self) -> list[object]:
        """Everything that the numbers depend on, to be hashed."""
        parts = (self.inputs, self.depths, self.ends, self.kept)
        return [
            tuple(self.inputs.shape),
            *(part.numpy().tobytes() for part in parts),
            self.readout.content(),
        ]


def pack(rows: Sequence[BatchRow], *, pass_tokens: int, square_cost: float) -> list[PackedBatch]:
    """Pack inputs into forward passes.

    Args:
        rows: The inputs.
        pass_tokens: Most tokens, padding included, of one pass of several rows, B * N.
        square_cost: What attention costs: a packed row of N tokens costs
            ``N + square_cost * N ** 2``.

    Returns:
        The passes, those of the longest rows first.
    """
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: row.ids)
    shared = _shared_lengths(ordered)
    cuts = _cuts(
        np.array([len(row.ids) for row in ordered]),
        shared,
        capacity=pass_tokens,
        square_cost=square_cost,
    )
    trees = [
        _grow(ordered[a:b], shared[a:b].tolist()) for a, b in zip(cuts, cuts[1:], strict=False)
    ]
    trees.sort(key=lambda tree: -len(tree.ids))  # stable: equal ones stay in the order of tokens
    passes = []
    start = 0
    while start < len(trees):
        size = max(1, pass_tokens // len(trees[start].ids))
        passes.append(lay_out_trees(trees[start : start + size]))
        start += size
    return passes


def lay_out_trees(trees: Sequence[Tree]) -> PackedBatch:
    """Make one pass of packed rows."""
    width = max(len(tree.ids) for tree in trees)
    inputs = torch.zeros(len(trees), width, dtype=torch.long)
    depths = torch.zeros(len(trees), width, dtype=torch.long)
    ends = torch.arange(1, width + 1).repeat(len(trees), 1)  # padding has no descendants
    kept: list[int] = []
    builder = ReadoutBuilder()
    for line, tree in enumerate(trees):
        n = len(tree.ids)
        inputs[line, :n] = torch.tensor(tree.ids)
        depths[line, :n] = torch.tensor(tree.depths)
        ends[line, :n] = torch.tensor(tree.ends)
        places = sorted(
            {p for reading in tree.members for p in (*reading.scored, *reading.compared)}
        )
        builder.add(
            range(len(kept), len(kept) + len(places)),
            [reading.moved(partial(bisect_left, places)) for reading in tree.members],
        )
        kept.extend(line * width + place for place in places)
    return PackedBatch(inputs, depths, ends, torch.tensor(kept), builder.finish(), tuple(trees))


def _shared_lengths(ordered: Sequence[BatchRow]) -> NDArray[np.int64]:
    """How many tokens each input shares with the one before, (n,)."""
    arrays = [np.asarray(row.ids) for row in ordered]
    shared = [0]
    for before, after in zip(arrays, arrays[1:], strict=False):
        n = min(len(before), len(after))
        differ = before[:n] != after[:n]
        shared.append(int(differ.argmax()) if differ.any() else n)
    return np.array(shared)


def _cuts(
    lengths: NDArray[np.int64],
    shared: NDArray[np.int64],
    *,
    capacity: int,
    square_cost: float,
) -> list[int]:
    """Cut the ordered inputs (n,) into rows so that all rows together cost least.

    Returns:
        Where rows begin, and n at the end.
    """
    n = len(lengths)
    grown = np.cumsum(lengths - shared)  # tokens of one tree of all inputs so far
    best = np.zeros(n + 1)  # cost of the first i inputs
    begins = np.zeros(n + 1, dtype=np.int64)
    low = 0
    for last in range(n):
        # Tokens of the row [start, last], for every start.
        while low < last and lengths[low] + grown[last] - grown[low] > capacity:
            low += 1
        low = max(low, last + 1 - _MAX_ROWS_TRIED)
        starts = slice(low, last + 1)
        tokens = (lengths[starts] + grown[last] - grown[starts]).astype(float)
        costs = best[starts] + tokens + square_cost * tokens**2
        costs[:-1][tokens[:-1] > capacity] = np.inf  # an input alone must do
        pick = int(costs.argmin())
        best[last + 1], begins[last + 1] = costs[pick], low + pick
    cuts = [n]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    return cuts[::-1]


def _grow(rows: Sequence[BatchRow], shared: Sequence[int]) -> Tree:
    """The tree of some inputs in order, each sharing so many tokens with the one before."""
    ids: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    path: list[int] = []  # tokens from the root to where the last input ended
    members: list[Reading] = []
    for i, row in enumerate(rows):
        common = shared[i] if i else 0
        for place in path[common:]:
            ends[place] = len(ids)
        del path[common:]
        for depth in range(common, len(row.ids)):
            path.append(len(ids))
            ids.append(row.ids[depth])
            depths.append(depth)
            ends.append(0)
        scored = path[row.first :]
        members.extend(reading.moved(scored.__getitem__) for reading in row.readings)
    for place in path:
        ends[place] = len(ids)
    return Tree(ids, depths, ends, members)
