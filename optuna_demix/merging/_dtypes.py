"""The element types that can be averaged, under their names in safetensors and in torch."""

from __future__ import annotations

import torch

from optuna_demix.errors import ComponentError

# safetensors name -> torch dtype. float64 checkpoints do not occur and integers have no average.
MERGEABLE: dict[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# The bits of the exponent, all set in infinities and NaN alone, in an integer of the same size.
_EXPONENT = {
    torch.float32: (torch.int32, 0x7F800000),
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
}


def all_finite(values: torch.Tensor) -> bool:
    """Tell whether a contiguous CPU tensor of a mergeable dtype is free of NaN and infinity.

    In numpy, for blocks in cache: starting torch's threads for each block costs more than it
    saves, and hundredfold when other processes hold the cores.
    """
    integer, mask = _EXPONENT[values.dtype]
    bits = values.view(integer).numpy()
    return not bool(((bits & mask) == mask).any())


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return one of the mergeable torch dtypes.

    Raises:
        ComponentError: If it is none of them.
    """
    known = {dtype_name(known): known for known in MERGEABLE.values()}
    name = dtype_name(dtype) if isinstance(dtype, torch.dtype) else dtype
    if name not in known:
        raise ComponentError(f"dtype {name!r} cannot hold merged weights; use {', '.join(known)}")
    return known[name]
