"""Merge components into proxies: component set, arena, live model, merge methods.

Importing this package imports torch; it is imported only where merging is wanted.
"""

from __future__ import annotations

from optuna_demix.merging._drift import drift
from optuna_demix.merging.arena import Arena
from optuna_demix.merging.components import Component, ComponentSet, TensorSpec
from optuna_demix.merging.live_model import LiveModel
from optuna_demix.merging.methods import METHODS, MergeMethod, find_method

__all__ = [
    "METHODS",
    "Arena",
    "Component",
    "ComponentSet",
    "LiveModel",
    "MergeMethod",
    "TensorSpec",
    "drift",
    "find_method",
]
