"""Scores by trial, and the best of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.plots.palette import GOOD, GRAY, RECOMMENDED, TEXT
from optuna_demix.report.plots.style import (
    composite_title,
    escaped,
    float32,
    layout,
    of_trials,
    thinned,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData


def plot_convergence(data: ReportData) -> go.Figure:
    """Composite of each trial, the best so far, and that predicted of recommendation and prior."""
    import plotly.graph_objects as go

    shown = thinned(data)
    kept = np.isfinite(data.merit)
    steps, best = _steps(data.numbers[kept], data.composite[kept])
    recommended = data.recommendation.mixtures["recommended"].composite
    prior = data.recommendation.mixtures["prior"].composite
    figure = go.Figure(
        [
            go.Scatter(
                name="trial",
                x=data.numbers[shown].astype(np.int32),
                y=float32(data.composite[shown]),
                mode="markers",
                marker={"color": GRAY, "size": 5, "opacity": 0.7},
                customdata=float32(data.values[shown]),
                hovertemplate="trial %{x}<br>composite %{y:.3f}"
                + _value_lines(data.objectives)
                + "<extra></extra>",
            ),
            go.Scatter(
                name="best so far",
                x=steps.astype(np.int32),
                y=float32(best),
                mode="lines",
                line={"color": GOOD, "shape": "hv", "width": 2},
                hovertemplate="from trial %{x} on<br>composite %{y:.3f}<extra></extra>",
            ),
            _level("recommended (predicted)", recommended, data.numbers, RECOMMENDED, "dash"),
            _level("prior (predicted)", prior, data.numbers, TEXT, "dot"),
        ]
    )
    layout(figure, "Convergence", of_trials(shown, data))
    figure.update_xaxes(title="trial", rangemode="tozero")
    figure.update_yaxes(title=composite_title(data))
    return figure


def _value_lines(names: Sequence[str]) -> str:
    """Lines of a hover label that show the custom data under these names."""
    return "".join(f"<br>{escaped(name)} %{{customdata[{i}]:.4g}}" for i, name in enumerate(names))


def _level(
    name: str, value: float, numbers: NDArray[np.int64], color: str, dash: str
) -> go.Scatter:
    """A horizontal line over all trials."""
    import plotly.graph_objects as go

    return go.Scatter(
        name=name,
        x=[int(numbers[0]), int(numbers[-1])],
        y=[value, value],
        mode="lines",
        line={"color": color, "dash": dash, "width": 1.5},
        hovertemplate=f"{name}<br>composite %{{y:.3f}}<extra></extra>",
    )


def _steps(numbers: NDArray[np.int64], merit: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Trials (s,) at which the best so far rises, and the last one, with the best there (s,)."""
    best = np.maximum.accumulate(merit)
    rises = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    places = np.unique([*rises.tolist(), len(best) - 1]).astype(np.intp)
    return numbers[places], best[places]
