"""The search as Optuna sees it: sampler, objective, terminator and recommendation.

Optuna, LightGBM and scipy are imported when one of the names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.search._result import Mixture, Recommendation
    from optuna_demix.search._weights import PhaseWeights, Weights
    from optuna_demix.search.objective import MixtureObjective, Scores
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.recommendation import recommend, verify
    from optuna_demix.search.sampler import DemixSampler
    from optuna_demix.search.terminator import DemixTerminator

__all__ = [
    "DemixSampler",
    "DemixTerminator",
    "Mixture",
    "MixtureObjective",
    "PhaseWeights",
    "Recommendation",
    "Scores",
    "SearchOptions",
    "Weights",
    "recommend",
    "verify",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DemixSampler": "optuna_demix.search.sampler",
        "DemixTerminator": "optuna_demix.search.terminator",
        "Mixture": "optuna_demix.search._result",
        "MixtureObjective": "optuna_demix.search.objective",
        "Recommendation": "optuna_demix.search._result",
        "Scores": "optuna_demix.search.objective",
        "SearchOptions": "optuna_demix.search.options",
        "PhaseWeights": "optuna_demix.search._weights",
        "Weights": "optuna_demix.search._weights",
        "recommend": "optuna_demix.search.recommendation",
        "verify": "optuna_demix.search.recommendation",
    },
)
