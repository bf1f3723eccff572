"""Predicted scores against those that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.plots.palette import GOOD, GRAY, TEXT
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

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData


def plot_predictions(data: ReportData) -> go.Figure:
    """Actual objective values over those predicted, when proposed and held-out; one panel each."""
    import plotly.graph_objects as go

    names = data.objectives[:MOST_PANELS]
    titles = [escaped(name) for name in names]
    figure, places = panels(titles, x="predicted", y="actual", vertical=0.14)
    shown = thinned(data, scale=1 / len(names) ** 0.5)
    kinds = [
        ("held-out prediction", data.held_out, data.held_out_std, GRAY, "circle-open"),
        ("predicted when proposed", data.proposed, data.proposed_std, GOOD, "circle"),
    ]
    for j, place in enumerate(places):
        actual = data.values[shown, j]
        ends = _span(actual, *(mean[shown, j] for _, mean, *_ in kinds))
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=ends,
                mode="lines",
                line={"color": TEXT, "width": 1, "dash": "dot"},
                hoverinfo="skip",
                showlegend=False,
            ),
            **place,
        )
        for label, mean, std, color, symbol in kinds:
            known = np.isfinite(mean[shown, j])
            if not known.any():
                continue
            rows = shown[known]
            figure.add_trace(
                go.Scatter(
                    name=label,
                    legendgroup=label,
                    showlegend=j == 0,
                    x=float32(mean[rows, j]),
                    y=float32(data.values[rows, j]),
                    mode="markers",
                    marker={"color": color, "symbol": symbol, **dots(len(shown))},
                    customdata=float32(np.column_stack([data.numbers[rows], std[rows, j]])),
                    hovertemplate="trial %{customdata[0]:d}<br>predicted %{x:.4g} "
                    "±%{customdata[1]:.2g}<br>actual %{y:.4g}<extra></extra>",
                ),
                **place,
            )
    layout(
        figure,
        "Predicted against actual",
        joined("dotted: as predicted", of_trials(shown, data)),
        top=95,
    )
    return figure


def _span(*arrays: FloatArray) -> list[float]:
    """Least and largest finite value of some arrays."""
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    return [float(values.min()), float(values.max())] if len(values) else [0.0, 1.0]
