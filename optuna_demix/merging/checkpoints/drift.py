"""How far training has moved each component from the base."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.tensor_reader import TensorReader

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.components import Component, ComponentSet
    from optuna_demix.merging.checkpoints.safetensors import TensorEntry

_CHUNK_ELEMENTS = 1 << 22


def drift(components: ComponentSet) -> dict[str, float]:
    """Return ``‖T − B‖ / (‖T‖ + ‖B‖)`` of each component T and the base B, by name.

    Frobenius norms over all parameters (arXiv 2602.00747, Table 12): 0 is the base itself, 1 as
    far as a model can be. The nearer, the better a weighted average stands for training. Reads
    chunk by chunk, never a whole model.

    Args:
        components: A set opened with ``base=``.

    Raises:
        ComponentError: If the set has no base or a model holds NaN or infinity.
    """
    base = components.base
    if base is None:
        raise ComponentError("drift needs the base model; open the components with base=PATH")
    return {
        name: _drift(component, base)
        for name, component in zip(components.names, components.components, strict=True)
    }


def _drift(component: Component, base: Component) -> float:
    moved = own = origin = 0.0
    with (
        TensorReader(component.checkpoint.label) as reader,
        TensorReader(base.checkpoint.label) as base_reader,
    ):
        for name, entry in component.sources.items():
            for start in range(0, entry.n_elements, _CHUNK_ELEMENTS):
                trained = _read(component, reader, name, entry, start)
                untrained = _read(base, base_reader, name, base.sources[name], start)
                own += float(trained.square().sum())
                origin += float(untrained.square().sum())
                moved += float(trained.sub_(untrained).square_().sum())
    total = math.sqrt(own) + math.sqrt(origin)
    return math.sqrt(moved) / total if total > 0.0 else 0.0


def _read(
    component: Component, reader: TensorReader, name: str, entry: TensorEntry, start: int
) -> torch.Tensor:
    """Return elements from ``start`` on, at most one chunk, as float64."""
    stored = torch.empty(
        min(_CHUNK_ELEMENTS, entry.n_elements - start), dtype=MERGEABLE[entry.dtype]
    )
    content = stored.view(torch.uint8).numpy().data
    reader.read_into(entry, start * stored.element_size(), content)
    values = stored.double()
    if not bool(torch.isfinite(values).all()):
        what, remedy = f"tensor {name!r} holds NaN or infinity", "train this model again"
        raise problem(component.checkpoint.label, what, remedy, file=entry.file)
    return values
