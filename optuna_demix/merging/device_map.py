"""The words of a device map, without torch: names of devices and of ways to choose them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""What accelerate calls its ways to spread a model over all CUDA devices."""
DEVICES = "cpu, cuda or cuda:<number>"
_DEVICE = re.compile(r"(cpu|cuda)(:[0-9]+)?")


def is_spread(device: Any) -> TypeGuard[str | Mapping[str, Any]]:
    """Tell whether this may mean several devices: a map, or one of `STRATEGIES`."""
    return isinstance(device, Mapping) or device in STRATEGIES


def device_name(given: Any) -> str:
    """Return a device of a map as PyTorch names it: ``cuda:1`` for the number 1.

    Raises:
        ValueError: If it is none on which modules can be merged and run.
    """
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return f"cuda:{given}"
    name = str(given)
    if name == "disk":
        raise ValueError(
            "modules on the disk cannot be merged; give each a device with memory, cpu or "
            "cuda:<number>"
        )
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"{given!r} is not a device; give {DEVICES}, or the number alone")
    return "cuda:0" if name == "cuda" else name


def n_cuda_devices(modules: Mapping[str, Any]) -> int:
    """Return how many CUDA devices must be there for a map: one more than its highest number."""
    names = [device_name(device) for device in modules.values()]
    return max((1 + int(name[5:]) for name in names if name.startswith("cuda:")), default=0)
