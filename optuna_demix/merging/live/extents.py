"""Which blocks of an arena each device of a live model needs, and where they lie in its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optuna_demix.merging.arena.layout import Part, Slot
    from optuna_demix.merging.live.placement import Placement


@dataclass(frozen=True)
class Extent:
    """The blocks of one part that one device needs: all that its tensors touch, in order.

    A block in which the tensors of two devices meet is merged by both, so that each merges the
    same numbers as a single device would.

    Attributes:
        number: Which part.
        part: The part.
        device: The device, as a placement names it.
        ranges: Its blocks, ascending and apart from each other.
        owned: Its tensors, in the part's order.
    """

    number: int
    part: Part
    device: str
    ranges: tuple[slice, ...]
    owned: tuple[Slot, ...]

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return sum(blocks.stop - blocks.start for blocks in self.ranges)

    @property
    def n_padded(self) -> int:
        """Elements of all blocks."""
        return self.n_blocks * self.part.layout.block_size

    def offsets(self) -> Iterator[tuple[Slot, int]]:
        """Yield each tensor, and its first element in the device's flat memory."""
        size, before = self.part.layout.block_size, 0
        waiting = iter(self.owned)
        slot = next(waiting, None)
        for blocks in self.ranges:
            while slot is not None and slot.offset < blocks.stop * size:
                yield slot, slot.offset - blocks.start * size + before
                slot = next(waiting, None)
            before += (blocks.stop - blocks.start) * size
        while slot is not None:  # empty ones behind the last block
            yield slot, 0
            slot = next(waiting, None)


def plan_extents(parts: Sequence[Part], placement: Placement) -> list[Extent]:
    """Divide the parts of an arena among devices.

    Args:
        parts: The parts.
        placement: Where each tensor lies.

    Returns:
        Part by part, an extent for each device that has tensors of it.
    """
    found = []
    for number, part in enumerate(parts):
        owned: dict[str, list[Slot]] = {}
        for slot in part.layout.slots:
            device = placement.device_of(slot.name)
            assert device is not None  # a placement says it of every tensor
            owned.setdefault(device, []).append(slot)
        found += [
            Extent(number, part, device, _touched(slots, part.layout.block_size), tuple(slots))
            for device, slots in owned.items()
        ]
    return found


def _touched(slots: Sequence[Slot], size: int) -> tuple[slice, ...]:
    """Return the blocks that ascending tensors touch."""
    ranges: list[slice] = []
    for slot in slots:
        if not slot.n_elements:
            continue
        first, stop = slot.offset // size, -(-(slot.offset + slot.n_elements) // size)
        if ranges and first <= ranges[-1].stop:
            ranges[-1] = slice(ranges[-1].start, max(stop, ranges[-1].stop))
        else:
            ranges.append(slice(first, stop))
    return tuple(ranges)
