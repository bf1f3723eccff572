"""Merged proxies against the probability mixtures of the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.plots.palette import GOOD
from optuna_demix.report.plots.style import (
    escaped,
    float32,
    joined,
    layout,
    of_trials,
    thinned,
)
from optuna_demix.surrogate._validation import spearman

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix.report.data import ReportData

_MOST_PANELS = 9
_LEAST = 3  # trials: the rank correlation of two is always 1 or -1
_CROWD = 150  # points of a panel, from which on they are drawn smaller


def has_both_proxies(data: ReportData) -> bool:
    """Whether :func:`plot_proxies` has anything to show."""
    return len(_objectives(data)) > 0


def plot_proxies(data: ReportData) -> go.Figure:
    """Merged score over the probability mixture's, one panel for each objective that has both.

    Spearman's correlation is over all trials, also where only some of them are drawn.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    objectives = _objectives(data)[:_MOST_PANELS]
    columns = int(np.ceil(np.sqrt(len(objectives)))) if len(objectives) > 3 else len(objectives)
    figure = make_subplots(
        -(-len(objectives) // columns),
        columns,
        subplot_titles=[_title(data, j) for j in objectives],
        horizontal_spacing=0.12 / max(1, columns - 1),
        vertical_spacing=0.18,
    )
    shown = thinned(data, scale=1 / len(objectives) ** 0.5)
    crowded = len(shown) > _CROWD
    for panel, j in enumerate(objectives):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        rows = shown[_known(data, j)[shown]]
        figure.add_trace(
            go.Scatter(
                name=data.objectives[j],
                x=float32(data.probability[rows, j]),
                y=float32(data.merged[rows, j]),
                mode="markers",
                marker={
                    "color": GOOD,
                    "size": 4 if crowded else 5,
                    "opacity": 0.5 if crowded else 0.8,
                },
                customdata=float32(data.numbers[rows][:, None]),
                hovertemplate="trial %{customdata[0]:d}<br>probabilities %{x:.4g}"
                "<br>merged %{y:.4g}<extra></extra>",
                showlegend=False,
            ),
            **place,
        )
        last = panel >= len(objectives) - columns
        figure.update_xaxes(title="probability mixture" if last else None, **place)
    figure.update_yaxes(title="merged", col=1)
    figure.update_xaxes(nticks=4)
    figure.update_yaxes(nticks=6)
    layout(
        figure,
        "Merged proxies against probability mixtures",
        joined("where ranks differ, one of the two is wrong", of_trials(shown, data)),
        top=95,
    )
    return figure


def _objectives(data: ReportData) -> list[int]:
    """Objectives that enough trials have of both proxies."""
    return [j for j in range(len(data.objectives)) if _known(data, j).sum() >= _LEAST]


def _known(data: ReportData, j: int) -> NDArray[np.bool_]:
    """Mask (n,) of the trials that keep all constraints and have an objective of both proxies."""
    known: NDArray[np.bool_] = (
        np.isfinite(data.merit)
        & np.isfinite(data.merged[:, j])
        & np.isfinite(data.probability[:, j])
    )
    return known


def _title(data: ReportData, j: int) -> str:
    rows = _known(data, j)
    rho = spearman(data.merged[rows, j], data.probability[rows, j])
    shown = f"{rho:.3f}" if np.isfinite(rho) else "undefined"
    return f"{escaped(data.objectives[j])}<br>Spearman {shown}"
