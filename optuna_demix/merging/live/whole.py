"""Put one whole model into a live model's parameters, in place of a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging.checkpoints.state_reader import StateReader

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.fitting import Component
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
    live.restore()
    parameters = live.model.state_dict()
    with StateReader(component) as reader:
        for name in component.sources:
            target = parameters[name]
            if target.dtype in MERGEABLE.values():
                whole = torch.empty(target.numel(), dtype=target.dtype)
                reader.read(name, 0, whole)
                target.copy_(whole.view(target.shape))
