"""The rows of an arena's blocks, read from checkpoints and prepared for the merge method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_demix.merging.arena.deltas import DeltaType, encode_deltas

if TYPE_CHECKING:
    from optuna_demix.merging.arena.format import ArenaHeader, Block
    from optuna_demix.merging.arena.layout import Part, Piece
    from optuna_demix.merging.checkpoints.state_reader import StateReader


class _Rows:
    """One block of R rows at a time, in the storage type, filled by `fill`."""

    def __init__(self, sources: Sequence[StateReader]) -> None:
        self._sources = sources
        self._part: Part | None = None
        self._rows = torch.empty(0)

    def rows(self, block: Block) -> list[np.ndarray]:
        """Return the rows of a block as bytes, R arrays; valid until the next block."""
        if block.part is not self._part:
            self._part = block.part
            self._rows = torch.empty(
                len(self._sources), block.part.layout.block_size, dtype=block.part.dtype
            )
        self._rows.zero_()
        self.fill(list(block.part.layout.pieces(block.number_in_part)), self._rows)
        return list(self._rows.view(torch.uint8).numpy())

    def fill(self, pieces: Sequence[Piece], rows: torch.Tensor) -> None:
        """Fill the rows of one block, (R, block_size); what no tensor covers stays."""
        raise NotImplementedError


class BlockRows(_Rows):
    """Rows block by block, straight from the files: for methods that see elements alone.

    Memory: of models whose tensors must be converted, one converted group each.
    """

    def fill(self, pieces: Sequence[Piece], rows: torch.Tensor) -> None:
        """Fill the rows of one block, (R, block_size); what no tensor covers stays."""
        for source, row in zip(self._sources, rows, strict=True):
            for piece in pieces:
                part = row[piece.block_start : piece.block_start + piece.length]
                source.read(piece.slot.name, piece.tensor_start, part)


class DeltaRows:
    """Rows of differences from the base, whose own row is the last one, as it is.

    Args:
        sources: The components, then the base.
        deltas: Element type of the differences.
    """

    def __init__(self, sources: Sequence[StateReader], deltas: DeltaType) -> None:
        *self._components, self._base = sources
        self._deltas = deltas

    def rows(self, block: Block) -> list[np.ndarray]:
        """Return the rows of a block as bytes, R arrays."""
        size = block.part.layout.block_size
        whole = torch.zeros(len(self._components), size)
        base = torch.zeros(1, size, dtype=block.part.dtype)
        pieces = list(block.part.layout.pieces(block.number_in_part))
        BlockRows(self._components).fill(pieces, whole)
        BlockRows([self._base]).fill(pieces, base)
        # From the base as it is stored, so that its own rounding is not added.
        encoded = encode_deltas(whole - base.float(), self._deltas)
        return [*encoded.numpy(), base[0].view(torch.uint8).numpy()]


class TensorRows(_Rows):
    """Rows of methods that must see whole tensors: each is read and prepared once, in order.

    Memory: the tensors that meet in one block, of all models, and a few float32 copies of one.

    Args:
        sources: The models, in the order of the rows.
        header: Says what is prepared.
        keep_facts: Called with the number of each tensor and its facts, (F,).
    """

    def __init__(
        self,
        sources: Sequence[StateReader],
        header: ArenaHeader,
        keep_facts: Callable[[int, np.ndarray], None],
    ) -> None:
        super().__init__(sources)
        self._header = header
        self._keep_facts = keep_facts
        self._numbers = {slot.name: i for i, slot in enumerate(header.slots)}
        self._ready: dict[str, torch.Tensor] = {}  # (R, n_elements)

    def fill(self, pieces: Sequence[Piece], rows: torch.Tensor) -> None:
        """Fill the rows of one block, (R, block_size); what no tensor covers stays."""
        wanted = {piece.slot.name for piece in pieces}
        self._ready = {name: ready for name, ready in self._ready.items() if name in wanted}
        for piece in pieces:
            if piece.slot.name not in self._ready:
                self._ready[piece.slot.name] = self._prepare(piece, rows.dtype)
            whole = self._ready[piece.slot.name]
            end = piece.tensor_start + piece.length
            rows[:, piece.block_start : piece.block_start + piece.length] = whole[
                :, piece.tensor_start : end
            ]

    def _prepare(self, piece: Piece, dtype: torch.dtype) -> torch.Tensor:
        slot, header = piece.slot, self._header
        rows = torch.empty(len(self._sources), slot.n_elements, dtype=dtype)
        for source, row in zip(self._sources, rows, strict=True):
            source.read(slot.name, 0, row)
        facts = header.preparation.apply(
            rows.view(-1, *slot.shape), names=header.names, tensor=slot.name
        )
        self._keep_facts(self._numbers[slot.name], facts)
        return rows
