"""Which device holds which module of a live model, as accelerate's ``device_map`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from optuna_demix._wording import unknown_name
from optuna_demix.errors import ComponentError
from optuna_demix.merging._dtypes import dtype_name
from optuna_demix.merging._problem import problem
from optuna_demix.merging._quiet import quiet_accelerate
from optuna_demix.merging.device_map import STRATEGIES, device_name
from optuna_demix.merging.live.memory import as_device, free_bytes

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.skeleton import Skeleton

DeviceMap: TypeAlias = "str | torch.device | Mapping[str, str | int | torch.device]"
"""A device, one of accelerate's strategies, or the device of each module by its name."""
_WHERE = "scoring.device_map"
_USABLE = 0.9  # of the free memory, as transformers has it: forward passes need the rest


@dataclass(frozen=True)
class Placement:
    """The device of each module.

    Attributes:
        modules: A device by the name of each module, for all tensors below that name; the longest
            name that fits counts, and ``""`` fits all. ``cpu:0`` and ``cpu:1`` are two places in
            the same memory.
        main: The device of the inputs, which is that of the first parameter.
    """

    modules: Mapping[str, str]
    main: str

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, the main one first."""
        return tuple(dict.fromkeys((self.main, *self.modules.values())))

    def device_of(self, name: str) -> str | None:
        """Return the device of a module or tensor; None if nothing is said of it."""
        while name not in self.modules and name:
            name = name.rpartition(".")[0]
        return self.modules.get(name)

    def disjoint(self, model: torch.nn.Module) -> dict[str, torch.device]:
        """Return the same for hooks: no module of the map is part of another one."""
        found: dict[str, torch.device] = {}

        def visit(name: str, module: torch.nn.Module) -> None:
            prefix = f"{name}." if name else ""
            device = self.device_of(name)
            deeper = any(other != name and other.startswith(prefix) for other in self.modules)
            if device is not None and not deeper:
                found[name] = as_device(device)
                return
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for tensor, _ in own:
                device = self.device_of(f"{prefix}{tensor}") or self.main
                found[f"{prefix}{tensor}"] = as_device(device)
            for child, inner in module.named_children():
                visit(f"{prefix}{child}", inner)

        visit("", model)
        return found


def usable_bytes() -> dict[int, int]:
    """Return the bytes that a model may take of each CUDA device, by its number."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        number: int(_USABLE * (free_bytes(torch.device("cuda", number)) or 0))
        for number in range(count)
    }


def find_placement(
    device: DeviceMap,
    skeleton: Skeleton,
    dtype: torch.dtype,
    *,
    available: Mapping[int, int] | None = None,
) -> Placement:
    """Return where each module of a model lies.

    Args:
        device: A device, one of `STRATEGIES` or a map.
        skeleton: The model, valueless.
        dtype: Its element type.
        available: Bytes to be used of each CUDA device by its number, for strategies; by default
            `usable_bytes`. Without any all lies on the CPU.

    Raises:
        ComponentError: If a name or a device is unknown, a tensor has no device, tied tensors
            have two, or the model does not fit.
    """
    if isinstance(device, Mapping):
        return _checked({str(name): _named(given) for name, given in device.items()}, skeleton)
    if device not in STRATEGIES:
        return Placement({"": str(device)}, str(device))
    if available is None:
        available = usable_bytes()
    if not available:
        return Placement({"": "cpu"}, "cpu")
    found = _inferred(str(device), skeleton, dtype, available)
    return _checked({name: _named(given) for name, given in found.items()}, skeleton)


def _inferred(
    strategy: str, skeleton: Skeleton, dtype: torch.dtype, available: Mapping[int, int]
) -> Mapping[str, Any]:
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    model = skeleton.model
    settings: dict[str, Any] = {
        "no_split_module_classes": list(getattr(model, "_no_split_modules", None) or ()),
        "special_dtypes": skeleton.dtypes(dtype),
    }
    most: dict[int | str, int | str] = {number: size for number, size in available.items()}
    with quiet_accelerate():
        if strategy != "sequential":
            low = strategy == "balanced_low_0"
            most = get_balanced_memory(model, most, low_zero=low, **settings)
        found: Mapping[str, Any] = infer_auto_device_map(model, most, **settings)
    if not set(found.values()) <= set(available):  # the rest would go to the disk
        raise _too_large(skeleton, dtype, available)
    return found


def _too_large(
    skeleton: Skeleton, dtype: torch.dtype, available: Mapping[int, int]
) -> ComponentError:
    kept = skeleton.dtypes(dtype)
    needed = sum(torch.Size(skeleton.shapes[name]).numel() * kept[name].itemsize for name in kept)
    room = ", ".join(f"{size:,} of cuda:{number}" for number, size in available.items())
    need = f"needs {needed:,} bytes in {dtype_name(dtype)}, in whole layers"
    what = f"{need}, but forward passes leave {room}"
    smaller = "" if dtype.itemsize == 2 else "set scoring.dtype to bfloat16, "
    return problem("proxy", what, f"{smaller}free memory or give it more devices")


def _named(given: Any) -> str:
    try:
        return device_name(given)
    except ValueError as error:
        raise ComponentError(f"{_WHERE}: {error}") from None


def _checked(modules: dict[str, str], skeleton: Skeleton) -> Placement:
    known = ["", *(name for name, _ in skeleton.model.named_modules() if name)]
    known += [*skeleton.canonical, *(name for name, _ in skeleton.model.named_buffers())]
    for name in modules:
        if name not in known:
            what = unknown_name(name, known[1:], "module", listed=0)
            remedy = "name modules as model.named_modules() does"
            raise problem(_WHERE, what, remedy)
    first = next(iter(skeleton.shapes))
    placement = Placement(modules, modules.get("", ""))
    for name, canonical in skeleton.canonical.items():
        device, other = placement.device_of(name), placement.device_of(canonical)
        if device is None:
            what = f"no device for tensor {name!r}"
            raise problem(_WHERE, what, "name its module, or '' for all that is not named")
        if device != other:
            what = f"{name!r} and {canonical!r} are one tensor, but have two devices"
            raise problem(_WHERE, what, "give both modules the same one")
    main = placement.device_of(first)
    assert main is not None
    return Placement(modules, main)
