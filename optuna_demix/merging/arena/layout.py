"""Where each tensor lies in the flat vector of parameters, and how that vector is cut in blocks.

All components share one layout. Element ``e`` of component ``k`` is element ``e % block_size`` of
row ``k`` in block ``e // block_size``, so the data region is an array
``(n_blocks, R, block_size)`` and one merge reads it from front to back. R is the number of
components, plus one where the base is among the rows.

Most models keep all tensors in one element type. Where some have another one, such as router
biases in float32, each type makes a part of its own, with its own blocks.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from optuna_demix.merging.checkpoints.components import TensorSpec

ALIGNMENT = 64  # elements: a cache line or more in every dtype, and what vector kernels like
# One block of R rows in float32 should stay within a core's share of the last-level cache.
_CACHE_BYTES = 8 << 20
_MAX_BLOCK_SIZE = 1 << 18
_MIN_BLOCK_SIZE = 1 << 12


@dataclass(frozen=True)
class Slot:
    """Place of one tensor in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int  # elements, a multiple of ALIGNMENT

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Piece:
    """The part of one tensor that falls in one block."""

    slot: Slot
    tensor_start: int  # first element, counted in the tensor
    block_start: int  # the same, counted in the block
    length: int


@dataclass(frozen=True)
class Layout:
    """Slots in the order of their offsets, and the block size in elements."""

    slots: tuple[Slot, ...]
    block_size: int

    @property
    def n_elements(self) -> int:
        """Elements up to the end of the last tensor, gaps between tensors included."""
        return align(self.slots[-1].offset + self.slots[-1].n_elements, ALIGNMENT)

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the last one is padded."""
        return -(-self.n_elements // self.block_size)

    @property
    def n_padded(self) -> int:
        """Length of the flat vector, a whole number of blocks."""
        return self.n_blocks * self.block_size

    @cached_property
    def _offsets(self) -> list[int]:
        return [slot.offset for slot in self.slots]

    def pieces(self, block: int) -> Iterator[Piece]:
        """Yield what fills a block, in order; elements between pieces are padding."""
        begin, end = block * self.block_size, (block + 1) * self.block_size
        for slot in self.slots[max(0, bisect_right(self._offsets, begin) - 1) :]:
            if slot.offset >= end:
                return
            low, high = max(begin, slot.offset), min(end, slot.offset + slot.n_elements)
            if low < high:
                yield Piece(slot, low - slot.offset, low - begin, high - low)


@dataclass(frozen=True)
class Part:
    """The tensors of one element type."""

    dtype: torch.dtype
    layout: Layout

    @property
    def row_bytes(self) -> int:
        """Size of one row of one block."""
        return self.layout.block_size * self.dtype.itemsize


def align(number: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-number // multiple) * multiple


def plan_layout(
    shapes: Mapping[str, tuple[int, ...]], *, n_rows: int, block_size: int | None = None
) -> Layout:
    """Lay tensors out in the order of their names.

    Args:
        shapes: Shape of each tensor by name.
        n_rows: R.
        block_size: Elements a block; by default as large as keeps R rows in cache, and not
            larger than a small model.

    Raises:
        ValueError: If ``block_size`` is no positive multiple of 64.
    """
    slots: list[Slot] = []
    offset = 0
    for name, shape in sorted(shapes.items()):
        slots.append(Slot(name, tuple(shape), offset))
        offset = align(offset + slots[-1].n_elements, ALIGNMENT)
    if block_size is None:
        block_size = min(_default_block_size(n_rows), max(offset, ALIGNMENT))
    if block_size <= 0 or block_size % ALIGNMENT:
        raise ValueError(f"block_size must be a positive multiple of {ALIGNMENT}: {block_size}")
    return Layout(tuple(slots), block_size)


def plan_parts(
    tensors: Mapping[str, TensorSpec],
    dtype: torch.dtype,
    *,
    n_rows: int,
    block_size: int | None = None,
) -> tuple[Part, ...]:
    """Divide tensors by the element type that models of each type keep them in, largest first.

    Args:
        tensors: The tensors by name.
        dtype: Element type of those that follow it.
        n_rows: R.
        block_size: As for `plan_layout`.
    """
    groups: dict[tuple[torch.dtype, ...], dict[str, tuple[int, ...]]] = {}
    for name, spec in tensors.items():
        groups.setdefault(tuple(spec.dtypes.values()), {})[name] = spec.shape
    parts = [
        Part(
            tensors[next(iter(shapes))].dtypes[dtype],
            plan_layout(shapes, n_rows=n_rows, block_size=block_size),
        )
        for shapes in groups.values()
    ]
    return tuple(sorted(parts, key=lambda part: -part.layout.n_elements))


def _default_block_size(n_rows: int) -> int:
    size = _MAX_BLOCK_SIZE
    while size > _MIN_BLOCK_SIZE and size * n_rows * 4 > _CACHE_BYTES:
        size //= 2
    return size
