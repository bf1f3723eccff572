"""The device or devices on which proxies are merged and scored."""

from __future__ import annotations

from collections.abc import Mapping

from optuna_demix.errors import InputError
from optuna_demix.merging.device_map import STRATEGIES, device_name


def choose_device(
    given: str, device_map: str | Mapping[str, str | int] | None
) -> str | dict[str, str]:
    """The device that is asked for, as PyTorch names it, or the device map.

    Args:
        given: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        device_map: What the study's file says, for ``auto``.

    Returns:
        A device; a strategy of accelerate where there are CUDA devices to choose from; or a map
        whose devices are all here.

    Raises:
        InputError: If a device is unknown, or not there.
    """
    import torch

    one = "cuda" if torch.cuda.is_available() else "cpu"
    field, device = "device", given
    if given == "auto":
        if device_map is None:
            return one
        field = "scoring.device_map"
        if isinstance(device_map, Mapping):
            found = {name: device_name(each) for name, each in device_map.items()}
            for each in found.values():
                _check_there(field, each)
            return found
        if device_map in STRATEGIES:
            several = one == "cuda" and torch.cuda.device_count() > 1
            return device_map if several else one
        device = device_map
    _check_there(field, device)
    return device


def _check_there(field: str, device: str) -> None:
    import torch

    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or device.endswith(":") or (index and not index.isdigit()):
        raise InputError(f"{field} {device!r} is unknown; give auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{field} {device!r}: PyTorch sees no CUDA device here; give cpu")
    count = torch.cuda.device_count()
    if kind == "cuda" and index and int(index) >= count:
        raise InputError(f"{field} {device!r}: the CUDA devices here are 0 to {count - 1}")
