"""The memory of a live model: a flat buffer for each part and device, and views of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load

from optuna_demix.merging._problem import problem
from optuna_demix.merging.arena.constants import CONSTANTS_FILE
from optuna_demix.merging.arena.format import REBUILD
from optuna_demix.merging.live.memory import as_device

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.checkpoints.skeleton import Skeleton
    from optuna_demix.merging.live.extents import Extent


def part_dtypes(arena: Arena, skeleton: Skeleton, dtype: torch.dtype) -> list[torch.dtype]:
    """Return the element type of each part in a model of a dtype.

    Raises:
        ComponentError: If the arena stems from another release of transformers, whose model had
            other tensors.
    """
    stored = {slot.name: slot.shape for slot in arena.slots}
    wanted = {
        name: shape for name, shape in skeleton.shapes.items() if name not in skeleton.constants
    }
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            holder, other = ("arena", "model") if name in stored else ("model", "arena")
            what = f"tensor {name!r} of the {holder} does not fit the {other}"
            raise problem("arena", what, REBUILD, file=arena.path)
    kept = skeleton.dtypes(dtype)
    found = []
    for part in arena.parts:
        first = part.layout.slots[0].name
        for slot in part.layout.slots:
            if kept[slot.name] != kept[first]:
                what = f"tensors {first!r} and {slot.name!r} have two types in the model"
                raise problem("arena", what, REBUILD, file=arena.path)
        found.append(kept[first])
    return found


def allocate(
    extents: Sequence[Extent], dtypes: Sequence[torch.dtype], *, on_cpu: bool = False
) -> list[torch.Tensor]:
    """Return a flat buffer, (n_padded,), for each extent, on its device or on the CPU."""
    return [
        torch.empty(
            extent.n_padded, dtype=dtype, device="cpu" if on_cpu else as_device(extent.device)
        )
        for extent, dtype in zip(extents, dtypes, strict=True)
    ]


def views(extents: Sequence[Extent], flats: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return every merged tensor by name, as a view of its buffer."""
    return {
        slot.name: flat[start : start + slot.n_elements].view(slot.shape)
        for extent, flat in zip(extents, flats, strict=True)
        for slot, start in extent.offsets()
    }


def read_constants(directory: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that are copied, from an arena's unpacked files."""
    file = directory / CONSTANTS_FILE
    return load(file.read_bytes()) if file.is_file() else {}
