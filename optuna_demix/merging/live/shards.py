"""What each device of a live model merges: its blocks of one part, into its own flat memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.merging.arena.deltas import delta_blocks
from optuna_demix.merging.live.block_stream import BlockStream
from optuna_demix.merging.live.blocks import merge_blocks, merge_deltas
from optuna_demix.merging.live.kernels import Kernels
from optuna_demix.merging.live.memory import as_device, free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.live.extents import Extent
    from optuna_demix.merging.methods.plan import MergePlan

CHUNK_BYTES = 256 << 20  # of each streaming buffer: long transfers, little memory
_MIN_COMPILED_BYTES = 64 << 20  # bytes of arena: below, seconds of compiling save milliseconds
_MAX_RESIDENT_SHARE = 0.7  # of the free device memory; activations need the rest


class Shard:
    """One extent of an arena, merged where its tensors lie.

    Args:
        arena: The components.
        extent: Which blocks.
        flat: Where merged elements go, (n_padded,), on the extent's device.
        resident: Keep a copy of the blocks on that device instead of streaming them.
        kernels: Runs the computation.

    Attributes:
        flat: As given.
        kernels: As given.
        blocks: What merges read from: blocks on the device by their place, or a stream.
    """

    def __init__(
        self,
        arena: Arena,
        extent: Extent,
        flat: torch.Tensor,
        *,
        resident: bool,
        kernels: Kernels,
    ) -> None:
        self._part, self._deltas = extent.part, arena.preparation.deltas
        before = sum(len(part.layout.slots) for part in arena.parts[: extent.number])
        self._tensors = (before, before + len(self._part.layout.slots))
        self._out = flat.view(extent.n_blocks, self._part.layout.block_size)
        self.flat, self.kernels = flat, kernels
        blocks, device = arena.part_blocks[extent.number], flat.device
        self.blocks: BlockStream | list[tuple[slice, torch.Tensor]]
        if device.type == "cpu" or resident or not extent.ranges:
            # On the CPU this is the map itself: no copy is made.
            self.blocks = [(which, blocks[which].to(device)) for which in extent.ranges]
        else:
            self.blocks = BlockStream(
                blocks, device, ranges=extent.ranges, chunk_bytes=CHUNK_BYTES
            )

    def merge(self, plan: MergePlan) -> None:
        """Write the merged blocks; on a CUDA device, queue it on the current stream.

        Args:
            plan: What to compute, of all tensors of the arena.
        """
        plan = plan.part(*self._tensors)
        done = 0
        for which, rows in self._chunks():
            out = self._out[done : done + len(rows)]
            done += len(rows)
            if self._deltas is not None:
                found = delta_blocks(rows, self._part, self._deltas)
                merge_deltas(plan, found, out, kernels=self.kernels)
                continue
            layout = self._part.layout
            merge_blocks(plan, rows, out, layout=layout, blocks=which, kernels=self.kernels)

    def _chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (which blocks, those blocks where they are merged), front to back."""
        if isinstance(self.blocks, BlockStream):
            yield from self.blocks.chunks()
        else:
            yield from self.blocks


def make_shards(
    arena: Arena,
    extents: Sequence[Extent],
    flats: Sequence[torch.Tensor],
    *,
    resident: bool | None,
    compiled: bool | None,
) -> list[Shard]:
    """Return what merges each extent into its memory.

    Args:
        arena: The components.
        extents: Their division among devices.
        flats: The memory of each.
        resident: As for :class:`LiveModel`, decided for each device by itself.
        compiled: As for :class:`LiveModel`.
    """
    read: dict[str, int] = {}
    for extent in extents:
        nbytes = extent.n_blocks * arena.part_blocks[extent.number][:1].nbytes
        read[extent.device] = read.get(extent.device, 0) + nbytes
    stays = {
        device: _stays(as_device(device), nbytes) if resident is None else resident
        for device, nbytes in read.items()
    }
    made: dict[tuple[int, str], Kernels] = {}  # one compiles for all devices of a kind

    def kernels(extent: Extent, kind: str) -> Kernels:
        large = arena.part_blocks[extent.number].nbytes >= _MIN_COMPILED_BYTES
        wanted = large if compiled is None else compiled
        return made.setdefault((extent.number, kind), Kernels(compiled=wanted))

    return [
        Shard(
            arena,
            extent,
            flat,
            resident=stays[extent.device],
            kernels=kernels(extent, flat.device.type),
        )
        for extent, flat in zip(extents, flats, strict=True)
    ]


def _stays(device: torch.device, nbytes: int) -> bool:
    """Tell whether a copy of so many bytes of the arena is kept on a device."""
    if device.type == "cpu":
        return False
    free = free_bytes(device)
    return free is None or nbytes <= _MAX_RESIDENT_SHARE * free
