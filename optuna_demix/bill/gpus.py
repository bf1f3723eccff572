"""GPUs by name: what the vendors' data sheets say they can do at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna_demix._wording import unknown_name
from optuna_demix.errors import InputError

_CUSTOM = "TFLOP/s in bfloat16, GB/s and GB, as in 312,2039,80"


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet describes it.

    Attributes:
        name: Its name.
        half: Peak FLOP/s in bfloat16 and float16, dense.
        single: Peak FLOP/s in float32, without TF32, which PyTorch does not use by itself.
        bandwidth: Of its memory, in bytes a second.
        memory: In bytes.
        link: Bytes a second from the host, in one direction.
        source: The data sheet.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    memory: float
    link: float
    source: str


def _gpu(
    name: str,
    half: float,
    single: float,
    bandwidth: float,
    memory: float,
    link: float,
    source: str,
) -> Gpu:
    """From TFLOP/s, GB/s and GB."""
    numbers = (half * 1e12, single * 1e12, bandwidth * 1e9, memory * 1e9, link * 1e9)
    return Gpu(name, *numbers, source)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100", 312, 19.5, 2039, 80, 32, "NVIDIA A100 80GB SXM data sheet, 2022"),
        _gpu("A100-40GB", 312, 19.5, 1555, 40, 32, "NVIDIA A100 40GB SXM data sheet, 2020"),
        _gpu("H100", 989, 67, 3350, 80, 64, "NVIDIA H100 SXM data sheet, 2023"),
        _gpu("H100-NVL", 835, 60, 3900, 94, 64, "NVIDIA H100 NVL data sheet, 2024"),
        _gpu("H200", 989, 67, 4800, 141, 64, "NVIDIA H200 SXM data sheet, 2024"),
        _gpu("B200", 2250, 80, 8000, 180, 64, "NVIDIA Blackwell brief, HGX B200, 2024"),
        _gpu("L4", 121, 30.3, 300, 24, 32, "NVIDIA L4 data sheet, 2023"),
        _gpu("L40S", 362, 91.6, 864, 48, 32, "NVIDIA L40S data sheet, 2023"),
        _gpu("RTX4090", 165.2, 82.6, 1008, 24, 32, "NVIDIA Ada white paper, 2022"),
        _gpu("MI300X", 1307.4, 163.4, 5300, 192, 64, "AMD Instinct MI300X data sheet, 2023"),
    )
}
"""By name. Where a sheet gives numbers with sparsity, half of them."""


def find_gpu(name: str) -> Gpu:
    """The GPU of a name, or of three numbers: TFLOP/s in bfloat16, GB/s and GB.

    Args:
        name: Its name in any case, or the numbers with commas between them. Of these float32
            counts as a sixteenth, and the host sends 32 GB/s.

    Raises:
        InputError: If it is neither.
    """
    if "," in name:
        return _from_numbers(name)
    known = {key.lower().replace("-", ""): gpu for key, gpu in GPUS.items()}
    found = known.get(name.lower().replace("-", "").replace(" ", ""))
    if found is None:
        said = unknown_name(name, GPUS, "GPU", 0).rstrip(";")
        raise InputError(f"--gpu: {said}; known: {', '.join(GPUS)}; or give {_CUSTOM}")
    return found


def _from_numbers(text: str) -> Gpu:
    try:
        flops, bandwidth, memory = map(float, text.split(","))
        usable = all(math.isfinite(n) and n > 0 for n in (flops, bandwidth, memory))
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--gpu {text}: give three positive numbers, {_CUSTOM}")
    return _gpu(text, flops, flops / 16, bandwidth, memory, 32, "as given")
