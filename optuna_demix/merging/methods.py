"""The merge methods by name: a new one is one file and one line here."""

from __future__ import annotations

from typing import Protocol

import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging.linear import linear


class MergeMethod(Protocol):
    """Turns blocks of K components and merge weights into blocks of one proxy.

    It is called with some or all blocks at a time and must treat each block alone.
    """

    def __call__(self, blocks: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        """Write the merged blocks.

        Args:
            blocks: Components, (n, K, block_size), on any device, in any float type. Read-only.
            w: Merge weights, (K,), float64 on the CPU.
            out: Result, (n, block_size), on the same device, perhaps of another float type.
        """


METHODS: dict[str, MergeMethod] = {
    "linear": linear,
}


def find_method(name: str) -> MergeMethod:
    """Return a merge method by name.

    Raises:
        ComponentError: If there is none, listing those there are.
    """
    if name not in METHODS:
        raise ComponentError(f"unknown merge method {name!r}; use one of: {', '.join(METHODS)}")
    return METHODS[name]
