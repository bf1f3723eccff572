"""How much memory a study's workers need, from shapes alone: nothing is allocated for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_demix.merging.arena.deltas import block_bytes
from optuna_demix.merging.arena.layout import plan_parts
from optuna_demix.merging.arena.room import blocks_bytes
from optuna_demix.merging.live.block_stream import N_SLOTS, blocks_a_chunk
from optuna_demix.merging.live.extents import plan_extents
from optuna_demix.merging.live.placement import Placement
from optuna_demix.merging.live.shards import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from optuna_demix.merging.checkpoints.components import TensorSpec
    from optuna_demix.merging.methods.registry import MergeMethod

_ONE = Placement({"": "device"}, "device")


@dataclass(frozen=True)
class DeviceFootprint:
    """Memory of one device of a worker in bytes. What forward passes need comes on top.

    Attributes:
        device: Its name.
        model: The live model's parameters there.
        arena: Blocks that it merges: what a copy of them takes.
        buffers: Of merges that stream these blocks to it instead: so much on the device and as
            much pinned on the host.
    """

    device: str
    model: int
    arena: int
    buffers: int


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes.

    Attributes:
        arena: Blocks of the arena, on disk. All workers of a host map them and share what is in
            memory.
        devices: What each device of a worker takes, the one of the inputs first.
    """

    arena: int
    devices: tuple[DeviceFootprint, ...]


def plan_footprint(
    tensors: Mapping[str, TensorSpec],
    n_components: int,
    *,
    method: MergeMethod,
    dtype: torch.dtype,
    model_dtype: torch.dtype,
    placement: Placement = _ONE,
) -> Footprint:
    """Return what an arena and the live models over it take.

    Args:
        tensors: What is merged, as :class:`ComponentSet` has it.
        n_components: K.
        method: As for :meth:`Arena.build`.
        dtype: Storage type of the arena.
        model_dtype: Element type of the live model.
        placement: Where its modules lie; by default on one device.
    """
    preparation = method.preparation
    parts = plan_parts(tensors, dtype, n_rows=preparation.n_rows(n_components))
    found = {device: [0, 0, 0] for device in placement.devices}
    for extent in plan_extents(parts, placement):
        of_model = tensors[extent.part.layout.slots[0].name].dtypes[model_dtype]
        block = block_bytes(extent.part, preparation, n_components)
        longest = max((each.stop - each.start for each in extent.ranges), default=0)
        of_device = found[extent.device]
        of_device[0] += extent.n_padded * of_model.itemsize
        of_device[1] += extent.n_blocks * block
        of_device[2] += N_SLOTS * block * blocks_a_chunk(longest, block, CHUNK_BYTES)
    return Footprint(
        blocks_bytes(parts, preparation, n_components),
        tuple(DeviceFootprint(device, *numbers) for device, numbers in found.items()),
    )
