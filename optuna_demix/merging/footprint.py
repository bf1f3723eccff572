"""How much memory a study's workers need, from shapes alone: nothing is allocated for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_demix.merging.arena.deltas import block_bytes
from optuna_demix.merging.arena.layout import plan_parts
from optuna_demix.merging.arena.room import blocks_bytes
from optuna_demix.merging.live.block_stream import N_SLOTS, blocks_a_chunk
from optuna_demix.merging.live.live_model import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from optuna_demix.merging.checkpoints.components import TensorSpec
    from optuna_demix.merging.methods.registry import MergeMethod


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes. What forward passes need comes on top.

    Attributes:
        arena: Blocks of the arena, on disk. All workers of a host map them and share what is in
            memory; a device that keeps a copy needs as much again.
        model: The live model's parameters, for each worker, on its device.
        buffers: Of merges that stream the arena to a device, for each worker: so much on the
            device and as much pinned on the host.
    """

    arena: int
    model: int
    buffers: int


def plan_footprint(
    tensors: Mapping[str, TensorSpec],
    n_components: int,
    *,
    method: MergeMethod,
    dtype: torch.dtype,
    model_dtype: torch.dtype,
) -> Footprint:
    """Return what an arena and the live models over it take.

    Args:
        tensors: What is merged, as :class:`ComponentSet` has it.
        n_components: K.
        method: As for :meth:`Arena.build`.
        dtype: Storage type of the arena.
        model_dtype: Element type of the live model.
    """
    preparation = method.preparation
    parts = plan_parts(tensors, dtype, n_rows=preparation.n_rows(n_components))
    model = buffers = 0
    for part in parts:
        of_model = tensors[part.layout.slots[0].name].dtypes[model_dtype]
        model += part.layout.n_padded * of_model.itemsize
        block = block_bytes(part, preparation, n_components)
        buffers += N_SLOTS * block * blocks_a_chunk(part.layout.n_blocks, block, CHUNK_BYTES)
    return Footprint(blocks_bytes(parts, preparation, n_components), model, buffers)
