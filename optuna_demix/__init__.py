"""Search pre-training data mixtures with Optuna, merged-model proxies and LightGBM.

Everything is imported when it is first used: the sampler needs neither torch nor lm-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.mixture import Group, MixtureSpace
    from optuna_demix.search import (
        DemixSampler,
        DemixTerminator,
        MixtureObjective,
        Recommendation,
        recommend,
    )
    from optuna_demix.surrogate import Surrogate

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DemixSampler": "optuna_demix.search",
        "DemixTerminator": "optuna_demix.search",
        "Group": "optuna_demix.mixture",
        "MixtureObjective": "optuna_demix.search",
        "MixtureSpace": "optuna_demix.mixture",
        "Recommendation": "optuna_demix.search",
        "Surrogate": "optuna_demix.surrogate",
        "recommend": "optuna_demix.search",
    },
)
