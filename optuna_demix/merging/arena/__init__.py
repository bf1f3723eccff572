"""All components as one flat file, mapped into memory and shared by the workers of a host.

A merge reads it once from front to back. Torch is imported with the first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.arena.layout import Layout, Slot, plan_layout

__all__ = [
    "Arena",
    "Layout",
    "Slot",
    "plan_layout",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Arena": "optuna_demix.merging.arena.arena",
        "Layout": "optuna_demix.merging.arena.layout",
        "Slot": "optuna_demix.merging.arena.layout",
        "plan_layout": "optuna_demix.merging.arena.layout",
    },
)
