"""Merge components into proxies: checkpoints, arena, merge methods, live model.

Torch is imported when one of the names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.checkpoints.components import Component, ComponentSet, TensorSpec
    from optuna_demix.merging.checkpoints.drift import drift
    from optuna_demix.merging.live.live_model import LiveModel
    from optuna_demix.merging.methods.registry import METHODS, MergeMethod, find_method

__all__ = [
    "Arena",
    "Component",
    "ComponentSet",
    "LiveModel",
    "METHODS",
    "MergeMethod",
    "TensorSpec",
    "drift",
    "find_method",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Arena": "optuna_demix.merging.arena.arena",
        "Component": "optuna_demix.merging.checkpoints.components",
        "ComponentSet": "optuna_demix.merging.checkpoints.components",
        "LiveModel": "optuna_demix.merging.live.live_model",
        "METHODS": "optuna_demix.merging.methods.registry",
        "MergeMethod": "optuna_demix.merging.methods.registry",
        "TensorSpec": "optuna_demix.merging.checkpoints.components",
        "drift": "optuna_demix.merging.checkpoints.drift",
        "find_method": "optuna_demix.merging.methods.registry",
    },
)
