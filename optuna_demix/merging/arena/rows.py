"""The rows of an arena's blocks, read from checkpoints and prepared for the merge method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_demix.merging._dtypes import all_finite, dtype_name
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from optuna_demix.merging.arena.format import ArenaHeader
    from optuna_demix.merging.arena.layout import Piece
    from optuna_demix.merging.checkpoints.components import Component
    from optuna_demix.merging.checkpoints.tensor_reader import TensorReader


class TensorSource:
    """One model of the arena: a component or the base.

    Args:
        component: The model.
        reader: Open on its files.
        stored: Element type of its tensors there.
    """

    def __init__(self, component: Component, reader: TensorReader, stored: torch.dtype) -> None:
        self._component = component
        self._reader = reader
        self._stored = stored

    def read(self, name: str, start: int, out: torch.Tensor) -> None:
        """Fill a flat tensor with elements of tensor ``name`` from ``start`` on.

        Raises:
            ComponentError: If the file cannot be read, or an element is not finite in the dtype
                it has in the file or gets in the arena.
        """
        direct = out.dtype == self._stored
        found = out if direct else torch.empty(len(out), dtype=self._stored)
        content = found.view(torch.uint8).numpy().data
        offset = start * found.element_size()
        self._reader.read_into(self._component.sources[name], offset, content)
        if not direct:
            out.copy_(found)  # rounds to nearest even
        if not all_finite(out):
            self._refuse(name, found, out)

    def _refuse(self, name: str, found: torch.Tensor, out: torch.Tensor) -> None:
        if all_finite(found):
            what = f"tensor {name!r} holds numbers too large for {dtype_name(out.dtype)}"
            remedy = "build the arena in bfloat16 or float32"
        else:
            what = f"tensor {name!r} holds NaN or infinity"
            remedy = "leave this component out or train it again"
        file = self._component.sources[name].file
        raise problem(self._component.checkpoint.label, what, remedy, file=file)


class BlockRows:
    """Rows block by block, straight from the files: for methods that see elements alone."""

    def __init__(self, sources: Sequence[TensorSource]) -> None:
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
        sources: Sequence[TensorSource],
        header: ArenaHeader,
        keep_facts: Callable[[int, np.ndarray], None],
    ) -> None:
        self._sources = sources
        self._header = header
        self._keep_facts = keep_facts
        self._numbers = {slot.name: i for i, slot in enumerate(header.layout.slots)}
        self._ready: dict[str, torch.Tensor] = {}  # (R, n_elements)

    def fill(self, pieces: Sequence[Piece], rows: torch.Tensor) -> None:
        """Fill the rows of one block, (R, block_size); what no tensor covers stays."""
        wanted = {piece.slot.name for piece in pieces}
        self._ready = {name: ready for name, ready in self._ready.items() if name in wanted}
        for piece in pieces:
            if piece.slot.name not in self._ready:
                self._ready[piece.slot.name] = self._prepare(piece)
            whole = self._ready[piece.slot.name]
            end = piece.tensor_start + piece.length
            rows[:, piece.block_start : piece.block_start + piece.length] = whole[
                :, piece.tensor_start : end
            ]

    def _prepare(self, piece: Piece) -> torch.Tensor:
        slot, header = piece.slot, self._header
        rows = torch.empty(len(self._sources), slot.n_elements, dtype=header.dtype)
        for source, row in zip(self._sources, rows, strict=True):
            source.read(slot.name, 0, row)
        facts = header.preparation.apply(
            rows.view(-1, *slot.shape), names=header.names, tensor=slot.name
        )
        self._keep_facts(self._numbers[slot.name], facts)
        return rows
