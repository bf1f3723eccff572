"""The figures of a report, one module for each; plotly is imported when one is drawn."""

from __future__ import annotations

from optuna_demix.report.plots._figures import figures
from optuna_demix.report.plots.best_mixtures import plot_best_mixtures
from optuna_demix.report.plots.convergence import plot_convergence
from optuna_demix.report.plots.effects import plot_effects
from optuna_demix.report.plots.mixture_map import plot_mixture_map
from optuna_demix.report.plots.predictions import plot_predictions
from optuna_demix.report.plots.proxies import plot_proxies

__all__ = [
    "figures",
    "plot_best_mixtures",
    "plot_convergence",
    "plot_effects",
    "plot_mixture_map",
    "plot_predictions",
    "plot_proxies",
]
