"""Rows of an arena: elements as they are, or differences from the base in eight bits.

A row of differences is, for a block of n elements, n / 64 scales in float32 and then n elements
in int8 or float8 (e4m3). Tensors begin at multiples of 64 elements, so no scale serves two. A
difference is its element times its scale; the largest of each 64 is exact up to float32 rounding.

    error of int8:    half a scale, 1/254 of the largest difference of the 64
    error of float8:  1/16 of the difference itself, or 1/1024 of a scale where it is tiny
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch

from optuna_demix.merging.arena.layout import ALIGNMENT

if TYPE_CHECKING:
    from optuna_demix.merging.arena.layout import Part
    from optuna_demix.merging.methods.preparation import Preparation

DeltaType: TypeAlias = Literal["int8", "float8"]
GROUP = ALIGNMENT  # elements that share a scale
_SCALE_BYTES = 4
_TYPES = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
_LARGEST = {"int8": 127.0, "float8": 448.0}


def row_sizes(part: Part, preparation: Preparation, n_components: int) -> list[int]:
    """Return the bytes of each row of one block, R numbers."""
    if preparation.deltas is None:
        return [part.row_bytes] * preparation.n_rows(n_components)
    return [_delta_bytes(part.layout.block_size)] * n_components + [part.row_bytes]


def block_bytes(part: Part, preparation: Preparation, n_components: int) -> int:
    """Return the bytes of one block."""
    return sum(row_sizes(part, preparation, n_components))


def _delta_bytes(block_size: int) -> int:
    return block_size + block_size // GROUP * _SCALE_BYTES


def encode_deltas(deltas: torch.Tensor, kind: DeltaType) -> torch.Tensor:
    """Return differences as rows of bytes.

    Args:
        deltas: (K, n), float32, finite; n is a multiple of 64.
        kind: Element type.

    Returns:
        (K, bytes of a row), uint8.
    """
    largest = _LARGEST[kind]
    groups = torch.unflatten(deltas, -1, (-1, GROUP))
    scales = groups.abs().amax(dim=-1) / largest
    quotients = groups / torch.where(scales == 0, 1.0, scales).unsqueeze(-1)
    # A scale below float32's normal numbers is too coarse to keep quotients in range.
    quotients.clamp_(-largest, largest)
    if kind == "int8":
        quotients.round_()
    elements = quotients.to(_TYPES[kind]).view(deltas.shape)
    return torch.cat([scales.view(torch.uint8), elements.view(torch.uint8)], dim=-1)


class DeltaBlocks(NamedTuple):
    """Views of blocks of differences.

    Attributes:
        elements: (m, K, n), int8 or float8.
        scales: (m, K, n / 64), float32.
        base: (m, n), of the arena's element type.
    """

    elements: torch.Tensor
    scales: torch.Tensor
    base: torch.Tensor


def delta_blocks(raw: torch.Tensor, part: Part, kind: DeltaType) -> DeltaBlocks:
    """Return views of what blocks of bytes hold.

    Args:
        raw: (m, bytes of a block), uint8, on any device.
        part: Whose blocks they are.
        kind: Element type of the differences.
    """
    size, row = part.layout.block_size, _delta_bytes(part.layout.block_size)
    of_base = raw.shape[1] - part.row_bytes
    rows = torch.unflatten(raw[:, :of_base], -1, (-1, row))
    return DeltaBlocks(
        rows[..., row - size :].view(_TYPES[kind]),
        rows[..., : row - size].view(torch.float32),
        raw[:, of_base:].view(part.dtype),
    )
