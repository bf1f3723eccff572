"""All figures of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.report.plots.best_mixtures import plot_best_mixtures
from optuna_demix.report.plots.convergence import plot_convergence
from optuna_demix.report.plots.effects import plot_effects
from optuna_demix.report.plots.mixture_map import plot_mixture_map
from optuna_demix.report.plots.predictions import plot_predictions
from optuna_demix.report.plots.proxies import has_both_proxies, plot_proxies

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_demix.report.data import ReportData


def figures(data: ReportData) -> dict[str, go.Figure]:
    """All figures of a report by their identifier, in reading order.

    That of both proxies only where workers have written what the probability mixture says.
    """
    drawn = {
        "demix-convergence": plot_convergence(data),
        "demix-best-mixtures": plot_best_mixtures(data),
        "demix-mixture-map": plot_mixture_map(data),
        "demix-effects": plot_effects(data),
        "demix-predictions": plot_predictions(data),
    }
    if has_both_proxies(data):
        drawn["demix-proxies"] = plot_proxies(data)
    return drawn
