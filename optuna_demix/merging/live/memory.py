"""Whether a proxy fits a device, said before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from optuna_demix.merging._dtypes import dtype_name
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_demix.merging.live.extents import Extent

_MEMINFO = Path("/proc/meminfo")


def check_fits(
    extents: Sequence[Extent], dtypes: Sequence[torch.dtype], dtype: torch.dtype
) -> None:
    """Refuse a proxy of which some part is larger than the free memory of its device.

    Activations and, where they stay on the device, the components come on top: a proxy that
    passes may still turn out to be too large.

    Args:
        extents: What lies where.
        dtypes: Element type of each extent.
        dtype: That of most.

    Raises:
        ComponentError: Naming the bytes that are needed and those that are free.
    """
    needed: dict[torch.device, int] = {}
    for extent, kept in zip(extents, dtypes, strict=True):
        device = as_device(extent.device)
        needed[device] = needed.get(device, 0) + extent.n_padded * kept.itemsize
    for device, nbytes in needed.items():
        free = free_bytes(device)
        if free is not None and nbytes > free:
            part = "" if len(needed) == 1 else f"the part of it on {device} "
            what = f"{part}needs {nbytes:,} bytes in {dtype_name(dtype)}, but {device} has "
            smaller = "" if dtype.itemsize == 2 else "set scoring.dtype to bfloat16, "
            remedy = f"{smaller}free memory or choose a larger device"
            raise problem("proxy", f"{what}{free:,} free", remedy)


def as_device(name: str) -> torch.device:
    """Return the device of a name; those of the CPU are one."""
    device = torch.device(name)
    return torch.device("cpu") if device.type == "cpu" else device


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
