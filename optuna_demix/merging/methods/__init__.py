"""Merge methods: how merge weights and components become the parameters of a proxy.

What does not depend on the weights is prepared once, when the arena is built; what does becomes
a plan of numbers for the kernels. Names and parameters are plain data; torch is imported with the
first name that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.merging.methods.parameters import PARAMETERS
    from optuna_demix.merging.methods.plan import MergePlan
    from optuna_demix.merging.methods.preparation import Preparation
    from optuna_demix.merging.methods.registry import METHODS, MergeMethod, find_method

__all__ = [
    "METHODS",
    "MergeMethod",
    "MergePlan",
    "PARAMETERS",
    "Preparation",
    "find_method",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "METHODS": "optuna_demix.merging.methods.registry",
        "MergeMethod": "optuna_demix.merging.methods.registry",
        "MergePlan": "optuna_demix.merging.methods.plan",
        "PARAMETERS": "optuna_demix.merging.methods.parameters",
        "Preparation": "optuna_demix.merging.methods.preparation",
        "find_method": "optuna_demix.merging.methods.registry",
    },
)
