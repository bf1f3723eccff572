"""Merged proxies against the probability mixtures of the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.plots.palette import GOOD
from optuna_demix.report.plots.style import (
    MOST_PANELS,
    dots,
    escaped,
    float32,
    joined,
    layout,
    of_trials,
    panels,
    thinned,
)
from optuna_demix.surrogate._validation import spearman

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix.report.data import ReportData

_LEAST = 3  # trials: the rank correlation of two is always 1 or -1


def has_both_proxies(data: ReportData) -> bool:
    """Whether :func:`plot_proxies` has anything to show."""
    return len(_objectives(data)) > 0


def plot_proxies(data: ReportData) -> go.Figure:
    """Merged score over the probability mixture's, one panel for each objective that has both.

    Spearman's correlation is over all trials, also where only some of them are drawn.
    """
    import plotly.graph_objects as go

    objectives = _objectives(data)[:MOST_PANELS]
    titles = [_title(data, j) for j in objectives]
    figure, places = panels(titles, x="probability mixture", y="merged", vertical=0.18)
    shown = thinned(data, scale=1 / len(objectives) ** 0.5)
    for j, place in zip(objectives, places, strict=True):
        rows = shown[_known(data, j)[shown]]
        figure.add_trace(
            go.Scatter(
                name=data.objectives[j],
                x=float32(data.probability[rows, j]),
                y=float32(data.merged[rows, j]),
                mode="markers",
                marker={"color": GOOD, **dots(len(shown))},
                customdata=float32(data.numbers[rows][:, None]),
                hovertemplate="trial %{customdata[0]:d}<br>probabilities %{x:.4g}"
                "<br>merged %{y:.4g}<extra></extra>",
                showlegend=False,
            ),
            **place,
        )
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
