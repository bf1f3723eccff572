"""How far training has moved each component from the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging.checkpoints.state_reader import StateReader

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.components import ComponentSet
    from optuna_demix.merging.checkpoints.fitting import Component

DRIFT_BENDS = 0.07
"""Drift from which on proxies fall behind: at 0.069 the merged models of DeMix kept 0.81 of the
code score of really trained ones, at 0.101 they kept 0.75 (arXiv 2602.00747, Table 12)."""

DRIFT_MEASURED = 0.21
"""The largest drift at which merged models were compared with trained ones: they still ranked them
(Spearman 0.94), and kept 0.88 of their scores (``benchmarks/README.md``)."""

_CHUNK_ELEMENTS = 1 << 22


def drift(
    components: ComponentSet, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Return ``‖T − B‖ / (‖T‖ + ‖B‖)`` of each component T and the base B, by name.

    Frobenius norms over all parameters (arXiv 2602.00747, Table 12): 0 is the base itself, 1 as
    far as a model can be. The nearer, the better a weighted average stands for training. Reads
    chunk by chunk, never a whole model.

    Args:
        components: A set opened with ``base=``.
        progress: Called with the elements that were read and those of all components.

    Raises:
        ComponentError: If the set has no base or a model holds NaN or infinity.
    """
    base = components.base
    if base is None:
        raise ComponentError("drift needs the base model; open the components with base=PATH")
    tell = _teller(components, progress)
    return {
        name: _drift(component, base, components, tell)
        for name, component in zip(components.names, components.components, strict=True)
    }


def check_finite(
    components: ComponentSet, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Read every weight of every component, chunk by chunk, without a base to compare with.

    Args:
        components: The components.
        progress: As in :func:`drift`.

    Raises:
        ComponentError: If one holds NaN or infinity.
    """
    tell = _teller(components, progress)
    for component in components.components:
        with StateReader(component) as reader:
            for name, start, count in _chunks(components):
                reader.read(name, start, torch.empty(count, dtype=torch.float32))
                tell(count)


def _teller(
    components: ComponentSet, progress: Callable[[int, int], None] | None
) -> Callable[[int], None]:
    """What is told of each chunk, to count them all."""
    total, done = components.n_parameters * len(components.names), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return tell


def _chunks(components: ComponentSet) -> Iterator[tuple[str, int, int]]:
    """Name, first element and number of elements of all that is read of a component."""
    for name, spec in components.tensors.items():
        for start in range(0, spec.n_elements, _CHUNK_ELEMENTS):
            yield name, start, min(_CHUNK_ELEMENTS, spec.n_elements - start)


def _drift(
    component: Component, base: Component, components: ComponentSet, tell: Callable[[int], None]
) -> float:
    moved = own = origin = 0.0
    with StateReader(component) as reader, StateReader(base) as base_reader:
        for name, start, count in _chunks(components):
            trained, untrained = torch.empty(2, count, dtype=torch.float64)
            reader.read(name, start, trained)
            base_reader.read(name, start, untrained)
            own += float(trained.square().sum())
            origin += float(untrained.square().sum())
            moved += float(trained.sub_(untrained).square_().sum())
            tell(count)
    total = math.sqrt(own) + math.sqrt(origin)
    return math.sqrt(moved) / total if total > 0.0 else 0.0
