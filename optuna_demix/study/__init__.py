"""What a ``study.yaml`` turns into: sampler, pruner, components, objective and the Optuna study.

The first worker claims the study for a fingerprint of all that its scores depend on. Names are
imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.study.agreement import ProxyComparison, compare_proxies
    from optuna_demix.study.attach import check_directions, create_command, load_study
    from optuna_demix.study.components import build_arena, open_components
    from optuna_demix.study.direct import DirectRecommendation, recommend_directly
    from optuna_demix.study.evaluation import build_objective, check_benchmarks
    from optuna_demix.study.fingerprint import claim_study, differences
    from optuna_demix.study.probabilities import ProbabilityProxy, build_probabilities
    from optuna_demix.study.search import options_from, options_of, pruner_of, sampler_of

__all__ = [
    "DirectRecommendation",
    "ProbabilityProxy",
    "ProxyComparison",
    "build_arena",
    "build_objective",
    "build_probabilities",
    "check_benchmarks",
    "check_directions",
    "claim_study",
    "compare_proxies",
    "create_command",
    "differences",
    "load_study",
    "open_components",
    "options_from",
    "options_of",
    "pruner_of",
    "recommend_directly",
    "sampler_of",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DirectRecommendation": "optuna_demix.study.direct",
        "ProbabilityProxy": "optuna_demix.study.probabilities",
        "ProxyComparison": "optuna_demix.study.agreement",
        "build_arena": "optuna_demix.study.components",
        "build_objective": "optuna_demix.study.evaluation",
        "build_probabilities": "optuna_demix.study.probabilities",
        "check_benchmarks": "optuna_demix.study.evaluation",
        "check_directions": "optuna_demix.study.attach",
        "claim_study": "optuna_demix.study.fingerprint",
        "compare_proxies": "optuna_demix.study.agreement",
        "create_command": "optuna_demix.study.attach",
        "differences": "optuna_demix.study.fingerprint",
        "load_study": "optuna_demix.study.attach",
        "open_components": "optuna_demix.study.components",
        "options_from": "optuna_demix.study.search",
        "options_of": "optuna_demix.study.search",
        "pruner_of": "optuna_demix.study.search",
        "recommend_directly": "optuna_demix.study.direct",
        "sampler_of": "optuna_demix.study.search",
    },
)
