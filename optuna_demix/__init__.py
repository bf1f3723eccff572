"""Search pre-training data mixtures with Optuna, merged-model proxies and LightGBM.

Everything heavy is imported when it is first used: the sampler needs neither torch nor lm-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Eager on purpose: a function that bears its module's name must be bound after the module, or
# importing the submodule later would put the module in its place. Both import numpy alone.
from optuna_demix.mixture import Group, MixtureSpace
from optuna_demix.recommend import Recommendation, recommend

if TYPE_CHECKING:
    from optuna_demix.objective import MixtureObjective
    from optuna_demix.sampler import DemixSampler
    from optuna_demix.surrogate import Surrogate
    from optuna_demix.terminator import DemixTerminator

__version__ = "0.1.0"

__all__ = [
    "DemixSampler",
    "DemixTerminator",
    "Group",
    "MixtureObjective",
    "MixtureSpace",
    "Recommendation",
    "Surrogate",
    "recommend",
]

_LAZY = {
    "DemixSampler": "optuna_demix.sampler",
    "DemixTerminator": "optuna_demix.terminator",
    "MixtureObjective": "optuna_demix.objective",
    "Surrogate": "optuna_demix.surrogate",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
