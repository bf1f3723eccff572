"""Compares proxies with really trained models: does ranking the ones rank the others?

Reference models, trained on known mixtures, are scored with the same tasks as the merged models
and the probability mixtures of these mixtures. The check reports how far they agree.
"""

from __future__ import annotations

from optuna_demix.fidelity.agreement import Agreement, Estimate, agreements
from optuna_demix.fidelity.check import check_fidelity, judge
from optuna_demix.fidelity.comparison import Comparison, Preference, ProxyAgreement
from optuna_demix.fidelity.plots import draw, scatter
from optuna_demix.fidelity.references import Reference, find_references
from optuna_demix.fidelity.result import Fidelity, ScoredReference

__all__ = [
    "Agreement",
    "Comparison",
    "Estimate",
    "Fidelity",
    "Preference",
    "ProxyAgreement",
    "Reference",
    "ScoredReference",
    "agreements",
    "check_fidelity",
    "draw",
    "find_references",
    "judge",
    "scatter",
]
