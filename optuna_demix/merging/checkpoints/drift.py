"""How far training has moved each component from the base."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging.checkpoints.state_reader import StateReader

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.components import ComponentSet
    from optuna_demix.merging.checkpoints.fitting import Component

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
        name: _drift(component, base, components)
        for name, component in zip(components.names, components.components, strict=True)
    }


def _drift(component: Component, base: Component, components: ComponentSet) -> float:
    moved = own = origin = 0.0
    with StateReader(component) as reader, StateReader(base) as base_reader:
        for name, spec in components.tensors.items():
            for start in range(0, spec.n_elements, _CHUNK_ELEMENTS):
                count = min(_CHUNK_ELEMENTS, spec.n_elements - start)
                trained, untrained = torch.empty(2, count, dtype=torch.float64)
                reader.read(name, start, trained)
                base_reader.read(name, start, untrained)
                own += float(trained.square().sum())
                origin += float(untrained.square().sum())
                moved += float(trained.sub_(untrained).square_().sum())
    total = math.sqrt(own) + math.sqrt(origin)
    return math.sqrt(moved) / total if total > 0.0 else 0.0
