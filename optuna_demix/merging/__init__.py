"""Merge components into proxies: checkpoints, arena, merge methods, live model.

Torch is imported when one of the names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.arena import Arena
    from optuna_demix.merging.checkpoints import Component, ComponentSet, TensorSpec
    from optuna_demix.merging.checkpoints.drift import drift
    from optuna_demix.merging.live import LiveModel, load_whole
    from optuna_demix.merging.methods import METHODS, MergeMethod, find_method

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
    "load_whole",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Arena": "optuna_demix.merging.arena",
        "Component": "optuna_demix.merging.checkpoints",
        "ComponentSet": "optuna_demix.merging.checkpoints",
        "LiveModel": "optuna_demix.merging.live",
        "METHODS": "optuna_demix.merging.methods",
        "MergeMethod": "optuna_demix.merging.methods",
        "TensorSpec": "optuna_demix.merging.checkpoints",
        "drift": "optuna_demix.merging.checkpoints.drift",
        "find_method": "optuna_demix.merging.methods",
        "load_whole": "optuna_demix.merging.live",
    },
)
