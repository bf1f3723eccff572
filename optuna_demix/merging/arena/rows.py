"""The rows of an arena's blocks, read from checkpoints and prepared for the merge method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from optuna_demix.merging.arena.format import ArenaHeader
    from optuna_demix.merging.arena.layout import Piece
    from optuna_demix.merging.checkpoints.state_reader import StateReader


class BlockRows:
    """Rows block by block, straight from the files: for methods that see elements alone.

    Memory: of models whose tensors must be converted, one converted group each.
    """

    def __init__(self, sources: Sequence[StateReader]) -> None:
        self._sources = sources

    def fill(self, pieces: Sequence[Piece], rows: torch.Tensor) -> None:
        """Fill the rows of one block, (R, block_size); what no tensor covers stays."""
        for source, row in zip(self._sources, rows, strict=True):
            for piece in pieces:
                part = row[piece.block_start : piece.block_start + piece.length]
                source.read(piece.slot.name, piece.tensor_start, part)


class TensorRows:
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
        self._sources = sources
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
