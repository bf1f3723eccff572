"""The device on which proxies are merged and scored."""

from __future__ import annotations

from optuna_demix.errors import InputError


def choose_device(given: str, device_map: str | None) -> str:
    """The device that is asked for, as PyTorch names it.

    Args:
        given: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        device_map: What the study's file says, for ``auto``.

    Raises:
        InputError: If it is unknown, or not there.
    """
    import torch

    field, device = "device", given
    if given == "auto" and device_map is not None:
        field, device = "scoring.device_map", device_map
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or device.endswith(":") or (index and not index.isdigit()):
        raise InputError(f"{field} {device!r} is unknown; give auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{field} {device!r}: PyTorch sees no CUDA device here; give cpu")
    count = torch.cuda.device_count()
    if kind == "cuda" and index and int(index) >= count:
        raise InputError(f"{field} {device!r}: the CUDA devices here are 0 to {count - 1}")
    return device
