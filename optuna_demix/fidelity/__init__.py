"""Compares proxies with really trained models: does ranking the ones rank the others?

Reference models, trained on known mixtures, are scored with the same tasks as the proxies of
these mixtures. The check reports how far the two agree.
"""

from __future__ import annotations

from optuna_demix.fidelity.agreement import Agreement, Estimate, agreements
from optuna_demix.fidelity.check import Fidelity, ScoredReference, check_fidelity, judge
from optuna_demix.fidelity.plots import draw, scatter
from optuna_demix.fidelity.references import Reference, find_references

__all__ = [
    "Agreement",
    "Estimate",
    "Fidelity",
    "Reference",
    "ScoredReference",
    "agreements",
    "check_fidelity",
    "draw",
    "find_references",
    "judge",
    "scatter",
]
