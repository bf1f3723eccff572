"""Tensors that have no average, such as tables of integers: equal in all models, and copied."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.state_reader import StateReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_demix.merging.checkpoints.components import ComponentSet
    from optuna_demix.merging.checkpoints.fitting import Component

CONSTANTS_FILE = "constants.safetensors"


def read_constants(components: ComponentSet) -> bytes:
    """Return those of the first component as a safetensors file.

    Raises:
        ComponentError: If they cannot be read.
    """
    return save(_constants(components, components.components[0]))


def check_constants(components: ComponentSet, models: Sequence[Component]) -> None:
    """Check that all models have the same.

    Raises:
        ComponentError: Naming the first tensor that differs.
    """
    if not components.constants:
        return
    first = _constants(components, models[0])
    for model in models[1:]:
        for name, tensor in _constants(components, model).items():
            if not torch.equal(tensor, first[name]):
                label = models[0].checkpoint.label
                what = f"tensor {name!r} cannot be averaged and differs from that of {label}"
                remedy = "train all components from one base model"
                file = model.sources[name].file
                raise problem(model.checkpoint.label, what, remedy, file=file)


def _constants(components: ComponentSet, model: Component) -> dict[str, torch.Tensor]:
    found = {}
    with StateReader(model) as reader:
        for name, dtype in components.constants.items():
            source = model.sources[name]
            elements = reader.elements(source, 0, math.prod(source.shape))
            found[name] = elements.view(source.shape).to(dtype).contiguous()
    return found
