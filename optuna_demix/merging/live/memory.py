"""Whether a proxy fits a device, said before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from optuna_demix.merging._dtypes import dtype_name
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from optuna_demix.merging.arena.arena import Arena

_MEMINFO = Path("/proc/meminfo")


def check_fits(arena: Arena, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a proxy that is larger than a device's free memory.

    Activations and, where they stay on the device, the components come on top: a proxy that
    passes may still turn out to be too large.

    Raises:
        ComponentError: Naming the bytes that are needed and those that are free.
    """
    free = free_bytes(device)
    # Some parts may be kept in float32 in a smaller dtype; they are small.
    needed = sum(part.layout.n_padded for part in arena.parts) * dtype.itemsize
    if free is None or needed <= free:
        return
    what = f"needs {needed:,} bytes in {dtype_name(dtype)}, but {device} has {free:,} free"
    smaller = "" if dtype.itemsize == 2 else "set scoring.dtype to bfloat16, "
    raise problem("proxy", what, f"{smaller}free memory or choose a larger device")


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device in bytes; ``None`` where it cannot be told."""
    if device.type != "cpu":
        probe = getattr(torch.get_device_module(device), "mem_get_info", None)
        return None if probe is None else int(probe(device)[0])
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
