"""Checkpoints on disk: reading them, and checking that they can be merged.

Headers are read, weights only where they are needed. Torch is imported with the first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint, open_checkpoint
    from optuna_demix.merging.checkpoints.components import ComponentSet, TensorSpec
    from optuna_demix.merging.checkpoints.fitting import Component
    from optuna_demix.merging.checkpoints.safetensors import TensorEntry
    from optuna_demix.merging.checkpoints.state_reader import StateReader

__all__ = [
    "Checkpoint",
    "Component",
    "ComponentSet",
    "StateReader",
    "TensorEntry",
    "TensorSpec",
    "open_checkpoint",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Checkpoint": "optuna_demix.merging.checkpoints.checkpoint",
        "Component": "optuna_demix.merging.checkpoints.fitting",
        "ComponentSet": "optuna_demix.merging.checkpoints.components",
        "TensorEntry": "optuna_demix.merging.checkpoints.safetensors",
        "StateReader": "optuna_demix.merging.checkpoints.state_reader",
        "TensorSpec": "optuna_demix.merging.checkpoints.components",
        "open_checkpoint": "optuna_demix.merging.checkpoints.checkpoint",
    },
)
