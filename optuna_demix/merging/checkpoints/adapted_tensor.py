"""One tensor that an adapter changes: what it is made of, and its elements in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging.checkpoints.safetensors import TensorEntry

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.tensor_reader import TensorReader

_CHUNK_ELEMENTS = 1 << 22


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
class AdaptedEntry(TensorEntry):
    """A tensor of the base as an adapter leaves it, in shape and dtype of the base's.

    Attributes:
        origin: What the product is added to: the base's own tensor, or one saved whole.
        factors: The product, or None.
    """

    origin: TensorEntry
    factors: Factors | None


def adapted_values(reader: TensorReader, entry: AdaptedEntry, start: int, n: int) -> torch.Tensor:
    """Return ``n`` elements from ``start`` on, (n,), float32.

    Args:
        reader: Open on the files of the adapter and its base.
        entry: The tensor.
        start: First element.
        n: Number of elements.

    Raises:
        ComponentError: If a file cannot be read.
    """
    values = _read(reader, entry.origin, start, n)
    if entry.factors is None or not n:
        return values
    A, B = (reader.kept(part, _whole) for part in (entry.factors.A, entry.factors.B))
    # Factors of the tensor's own rows and columns: (rows, rank), (rank, columns).
    left, right = (A.T, B.T) if entry.factors.transposed else (B, A)
    columns = entry.shape[1]
    step = max(1, _CHUNK_ELEMENTS // columns)
    first, last = start // columns, -(-(start + n) // columns)
    for row in range(first, last, step):
        product = (left[row : min(row + step, last)] @ right).mul_(entry.factors.scale).view(-1)
        offset = row * columns - start  # where the product begins, counted in the values
        low, high = max(0, offset), min(n, offset + len(product))
        values[low:high] += product[low - offset : high - offset]
    return values


def read_adapted(reader: TensorReader, entry: AdaptedEntry, start: int, target: memoryview) -> None:
    """Fill ``target`` from byte ``start`` on, as if the tensor were stored in the base's dtype."""
    dtype = MERGEABLE[entry.dtype]
    values = adapted_values(
        reader, entry, start // dtype.itemsize, len(target) // dtype.itemsize
    ).to(dtype)
    target[:] = values.view(torch.uint8).numpy().data


def _whole(reader: TensorReader, entry: TensorEntry) -> torch.Tensor:
    return _read(reader, entry, 0, entry.n_elements).view(entry.shape)


def _read(reader: TensorReader, entry: TensorEntry, start: int, n: int) -> torch.Tensor:
    stored = torch.empty(n, dtype=MERGEABLE[entry.dtype])
    content = stored.view(torch.uint8).numpy().data
    reader.read_into(entry, start * stored.element_size(), content)
    return stored.float()
