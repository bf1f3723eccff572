"""Send blocks that do not fit a device through two pinned buffers while earlier ones are merged.

Three things run at once: the CPU copies chunk i + 1 from the page cache into pinned memory, the
copy engine sends it on a stream of its own, the device merges chunk i. A buffer is refilled only
once the copy engine has left it, a device buffer only once the merge that reads it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

N_SLOTS = 2


def blocks_a_chunk(n_blocks: int, block_bytes: int, chunk_bytes: int) -> int:
    """Return how many blocks are sent at once, at least one."""
    return max(1, min(n_blocks, chunk_bytes // max(1, block_bytes)))


class BlockStream:
    """Two pinned host buffers, two device buffers, one copy stream.

    Args:
        blocks: Host blocks, (n, K, block_size) or (n, bytes of a block).
        device: Where to send them.
        ranges: Which of them, ascending; by default all.
        chunk_bytes: Size aimed at for each of the four buffers, at least one block.
    """

    def __init__(
        self,
        blocks: torch.Tensor,
        device: torch.device,
        *,
        ranges: Sequence[slice] | None = None,
        chunk_bytes: int,
    ) -> None:
        self._blocks = blocks
        self._device = device
        self._backend = torch.get_device_module(device)
        if ranges is None:
            ranges = [slice(0, len(blocks))]
        longest = max(each.stop - each.start for each in ranges)
        step = blocks_a_chunk(longest, blocks[0].nbytes, chunk_bytes)
        self._chunks = [
            slice(start, min(start + step, each.stop))
            for each in ranges
            for start in range(each.start, each.stop, step)
        ]
        shape = (step, *blocks.shape[1:])
        pinned = device.type != "cpu"
        self._host = [
            torch.empty(shape, dtype=blocks.dtype, pin_memory=pinned) for _ in range(N_SLOTS)
        ]
        self._staged = [
            torch.empty(shape, dtype=blocks.dtype, device=device) for _ in range(N_SLOTS)
        ]
        self._copies = self._backend.Stream(device)
        self._arrived = [self._backend.Event() for _ in range(N_SLOTS)]
        self._merged = [self._backend.Event() for _ in range(N_SLOTS)]
        # The staged buffers were allocated on the current stream.
        self._copies.wait_stream(self._backend.current_stream(device))

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (which blocks, those blocks on the device), front to back.

        Work on a chunk must be queued on the current stream before the next one is asked for.
        """
        merging = self._backend.current_stream(self._device)
        self._send(0, self._chunks[0])
        for i, which in enumerate(self._chunks):
            if i + 1 < len(self._chunks):
                self._send((i + 1) % N_SLOTS, self._chunks[i + 1])
            slot = i % N_SLOTS
            merging.wait_event(self._arrived[slot])
            yield which, self._staged[slot][: which.stop - which.start]
            self._merged[slot].record(merging)

    def _send(self, slot: int, which: slice) -> None:
        chunk = self._blocks[which]
        self._arrived[slot].synchronize()  # the copy engine has left this pinned buffer
        self._host[slot][: len(chunk)].copy_(chunk)
        with self._backend.stream(self._copies):
            self._copies.wait_event(self._merged[slot])
            self._staged[slot][: len(chunk)].copy_(
                self._host[slot][: len(chunk)], non_blocking=True
            )
            self._arrived[slot].record(self._copies)
