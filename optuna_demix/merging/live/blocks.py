"""Carry a plan out over blocks of an arena: all of them at once, or tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from optuna_demix._typing import FloatArray
from optuna_demix.merging.arena.deltas import DeltaBlocks
from optuna_demix.merging.arena.layout import ALIGNMENT, Layout, align
from optuna_demix.merging.live.kernels import Kernels, elected_sum, moved_base, weighted_sum
from optuna_demix.merging.methods.plan import MergePlan


@dataclass(frozen=True)
class Segment:
    """A rectangle of the flat vector that belongs to one tensor: columns of adjacent blocks."""

    tensor: int  # index among the layout's slots
    blocks: slice
    columns: slice


def segments(layout: Layout, blocks: slice) -> Iterator[Segment]:
    """Cut blocks by tensor, front to back; at most three segments a tensor.

    A tensor's padding goes with it, so the columns are whole multiples of 64.
    """
    size = layout.block_size
    for number, slot in enumerate(layout.slots):
        begin = max(slot.offset, blocks.start * size)
        end = min(align(slot.offset + slot.n_elements, ALIGNMENT), blocks.stop * size)
        while begin < end:
            block, column = divmod(begin, size)
            whole = (end - begin) // size if column == 0 else 0
            if whole:
                yield Segment(number, slice(block, block + whole), slice(0, size))
                begin += whole * size
            else:
                stop = min(end, (block + 1) * size)
                columns = slice(column, column + stop - begin)
                yield Segment(number, slice(block, block + 1), columns)
                begin = stop


def merge_blocks(
    plan: MergePlan,
    rows: torch.Tensor,
    out: torch.Tensor,
    *,
    layout: Layout,
    blocks: slice,
    kernels: Kernels,
) -> None:
    """Write merged blocks.

    Args:
        plan: What to compute.
        rows: The blocks to merge, (m, R, block_size), on any device, in any float type.
        out: Result, (m, block_size), on the same device, perhaps of another float type.
        layout: Place of every tensor.
        blocks: Which blocks of the arena these are.
        kernels: Runs the computation.
    """
    # Sent once: each transfer waits for what a device has been given before.
    numbers = [_on_device(plan.coefficients, rows.device)]
    if plan.election is not None:
        vote = plan.election
        numbers += [_on_device(x, rows.device) for x in (vote.weights, vote.scale)]
    if plan.coefficients.ndim == 1:
        _merge(plan, plan.coefficients, numbers, rows, out, kernels)
        return
    for segment in segments(layout, blocks):
        which = slice(segment.blocks.start - blocks.start, segment.blocks.stop - blocks.start)
        _merge(
            plan,
            plan.coefficients[segment.tensor],
            [numbers[0][segment.tensor], *numbers[1:]],
            rows[which, :, segment.columns],
            out[which, segment.columns],
            kernels,
        )


def merge_deltas(
    plan: MergePlan, blocks: DeltaBlocks, out: torch.Tensor, *, kernels: Kernels
) -> None:
    """Write merged blocks of an arena that holds differences from the base.

    Args:
        plan: What to compute; its last coefficient is the base's.
        blocks: The blocks to merge, m of them.
        out: Result, (m, block_size), on the same device, perhaps of another float type.
        kernels: Runs the computation.
    """
    kernels.run_deltas(blocks, out, _on_device(plan.coefficients, out.device))


def _merge(
    plan: MergePlan,
    coefficients: FloatArray,  # of one tensor
    numbers: Sequence[torch.Tensor],  # the same on the device, then what the election needs
    rows: torch.Tensor,
    out: torch.Tensor,
    kernels: Kernels,
) -> None:
    if plan.election is not None:
        kernels.run(elected_sum, rows, out, *numbers, plan.election.normalize)
        return
    if plan.around_base:
        kernels.run(moved_base, rows, out, *numbers)
        return
    only = _only_row(coefficients)
    if only is not None:
        out.copy_(rows[:, only])  # bit for bit: 1 · (−0) + 0 · x would be +0
        return
    kernels.run(weighted_sum, rows, out, *numbers)


def _on_device(numbers: FloatArray | float, device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=device)


def _only_row(coefficients: FloatArray) -> int | None:
    """Return the row that is taken as it is, if it alone is."""
    chosen = np.flatnonzero(coefficients)
    if len(chosen) == 1 and coefficients[chosen[0]] == 1.0:
        return int(chosen[0])
    return None
