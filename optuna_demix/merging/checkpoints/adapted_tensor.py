"""One tensor that an adapter changes: what it is made of, and its elements in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from optuna_demix.merging.checkpoints.conversion import Converted
from optuna_demix.merging.checkpoints.safetensors import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHUNK_ELEMENTS = 1 << 22
Stored: TypeAlias = TensorEntry | Converted


@dataclass(frozen=True)
class Factors:
    """The product ``scale · B @ A`` that is added to a tensor.

    Attributes:
        A: (rank, n_in).
        B: (n_out, rank).
        scale: Its factor.
        transposed: Whether the tensor is stored as (n_in, n_out).
    """

    A: TensorEntry
    B: TensorEntry
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Adapted:
    """A tensor of the base as an adapter leaves it.

    Attributes:
        before: The base's own.
        origin: What the product is added to: the base's own, or one saved whole.
        factors: The product, or None.
    """

    before: Stored
    origin: Stored
    factors: Factors | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.origin.shape

    @property
    def file(self) -> Path:
        """Where what the adapter changes lies."""
        return self.origin.file if self.factors is None else self.factors.B.file


def adapted_elements(
    source: Adapted, start: int, count: int, read: Callable[[Stored, int, int], torch.Tensor]
) -> torch.Tensor:
    """Return elements of an adapted tensor in float32, (count,).

    Args:
        source: The tensor.
        start: The first element.
        count: How many.
        read: Returns elements of what is stored, from a first one on, so many.
    """
    values = read(source.origin, start, count).to(torch.float32, copy=True)
    if source.factors is None or not count:
        return values
    A, B = (
        read(part, 0, part.n_elements).float().view(part.shape)
        for part in (source.factors.A, source.factors.B)
    )
    # The tensor's own rows and columns: (rows, rank), (rank, columns).
    left, right = (A.T, B.T) if source.factors.transposed else (B, A)
    columns = source.shape[1]
    step = max(1, _CHUNK_ELEMENTS // columns)
    first, last = start // columns, -(-(start + count) // columns)
    for row in range(first, last, step):
        product = (left[row : min(row + step, last)] @ right).mul_(source.factors.scale).view(-1)
        offset = row * columns - start  # where the product begins, counted in the values
        low, high = max(0, offset), min(count, offset + len(product))
        values[low:high] += product[low - offset : high - offset]
    return values
