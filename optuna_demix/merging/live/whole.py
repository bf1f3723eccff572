"""Put one whole model into a live model's parameters, in place of a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.tensor_reader import TensorReader

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.components import Component
    from optuna_demix.merging.live.live_model import LiveModel


@torch.no_grad()
def load_whole(component: Component, live: LiveModel) -> None:
    """Overwrite a live model's parameters with those of one checked model, as it is stored.

    Args:
        component: A model that was opened in one :class:`ComponentSet` with the live model's
            components, and so has the same tensors.
        live: Its parameters are overwritten until the next merge.

    Raises:
        ComponentError: If a tensor holds NaN or infinity, or the model cannot be read.
    """
    parameters = live.model.state_dict()
    with TensorReader(component.checkpoint.label) as reader:
        for name, entry in component.sources.items():
            stored = torch.empty(entry.n_elements, dtype=MERGEABLE[entry.dtype])
            reader.read_into(entry, 0, stored.view(torch.uint8).numpy().data)
            if not bool(torch.isfinite(stored).all()):
                what, remedy = f"tensor {name!r} holds NaN or infinity", "train this model again"
                raise problem(component.checkpoint.label, what, remedy, file=entry.file)
            parameters[name].copy_(stored.view(parameters[name].shape))
