"""A map of the trials on the simplex of the three largest components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report.plots.palette import CLEAR, GRAY, GRID, MERIT, RECOMMENDED, TEXT
from optuna_demix.report.plots.style import (
    composite_title,
    escaped,
    float32,
    joined,
    layout,
    of_trials,
    thinned,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData

_LEAST_COVERED = 0.02  # with less of the three components a trial has no place among them


def plot_mixture_map(data: ReportData) -> go.Figure:
    """Where the trials lie in the triangle of the three largest components of the recommendation.

    With one or two components it is a scatter of the composite over the weight of the first.
    """
    shown = thinned(data)
    shown = shown[np.argsort(data.merit[shown], kind="stable")]  # the best ones on top
    draw = _triangle_map if len(data.space) >= 3 else _line_map
    figure = draw(data, shown)
    size = "; size: what share of the mixture these three are" if len(data.space) > 3 else ""
    remark = joined(f"color: composite{size}", of_trials(shown, data))
    title = "The mixtures tried" + " (three largest components)" * bool(size)
    layout(figure, title, remark, top=95)
    return figure


def _triangle_map(data: ReportData, shown: NDArray[np.intp]) -> go.Figure:
    """The map of three components or more, by the shares of the three largest among themselves."""
    import plotly.graph_objects as go

    largest = np.argsort(-data.weights_of("recommended"), kind="stable")[:3]
    chosen = np.sort(largest)
    covered = data.weights[shown][:, chosen].sum(axis=1)
    visible = covered > _LEAST_COVERED
    size = float32(np.where(visible, 4 + 5 * covered, 0))  # how much of the mixture they are
    figure = go.Figure(
        go.Scatterternary(
            name="trial",
            **_corners(data.weights[shown][:, chosen]),
            mode="markers",
            marker={"size": size, **_trial_marker(data, shown)},
            showlegend=False,
            **_trial_hover(data, shown),
        )
    )
    for label, weights, marker in _landmarks(data):
        figure.add_trace(
            go.Scatterternary(
                name=label,
                **_corners(weights[None, chosen]),
                mode="markers",
                marker=marker,
                hovertemplate=label + "<extra></extra>",
            )
        )
    names = [data.space.components[i] for i in chosen]
    axes = {
        axis: {
            "title": {"text": escaped(name), "font": {"size": 13}},
            "tickformat": ".0%",
            "tickvals": [0.2, 0.4, 0.6, 0.8],
            "gridcolor": GRID,
            "linecolor": GRAY,
            "tickfont": {"size": 10},
        }
        for axis, name in zip(("aaxis", "baxis", "caxis"), names, strict=True)
    }
    figure.update_layout(ternary={"sum": 1, "bgcolor": CLEAR, **axes})
    return figure


def _line_map(data: ReportData, shown: NDArray[np.intp]) -> go.Figure:
    """The map of one or two components: composite over the weight of the first."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            name="trial",
            x=float32(data.weights[shown, 0]),
            y=float32(data.composite[shown]),
            mode="markers",
            marker={"size": 8, **_trial_marker(data, shown)},
            showlegend=False,
            **_trial_hover(data, shown),
        )
    )
    for label, weights, marker in _landmarks(data):
        figure.add_trace(
            go.Scatter(
                name=label,
                x=[float(weights[0])],
                y=[data.recommendation.mixtures[label].composite],
                mode="markers",
                marker=marker,
            )
        )
    figure.update_xaxes(title=escaped(data.space.components[0]), tickformat=".0%")
    figure.update_yaxes(title=composite_title(data))
    return figure


def _landmarks(data: ReportData) -> list[tuple[str, FloatArray, dict[str, Any]]]:
    """Prior and recommendation: name, merge weights (K,) and marker."""
    line = {"line": {"color": TEXT, "width": 1.2}}
    diamond = {"symbol": "diamond", "size": 12, "color": "white", **line}
    star = {"symbol": "star", "size": 17, "color": RECOMMENDED, **line}
    return [
        ("prior", np.asarray(data.space.prior), diamond),
        ("recommended", data.weights_of("recommended"), star),
    ]


def _trial_marker(data: ReportData, shown: NDArray[np.intp]) -> dict[str, Any]:
    """Marker of trials, colored by their composite."""
    return {
        "color": float32(data.composite[shown]),
        "colorscale": MERIT,
        "opacity": 0.9,
        "colorbar": {"title": {"text": "composite", "side": "right"}, "thickness": 12},
        **_color_range(data.composite),
    }


def _trial_hover(data: ReportData, shown: NDArray[np.intp]) -> dict[str, Any]:
    """Hover label of trials: number, composite and all weights."""
    lines = [
        f"<br>{escaped(name)} %{{customdata[{i}]:.1f}} %"
        for i, name in enumerate(data.space.components, start=1)
    ]
    return {
        "customdata": float32(np.column_stack([data.numbers[shown], 100 * data.weights[shown]])),
        "hovertemplate": "trial %{customdata[0]:d}<br>composite %{marker.color:.3f}"
        + "".join(lines)
        + "<extra></extra>",
    }


def _corners(weights: FloatArray) -> dict[str, NDArray[np.float32]]:
    """Ternary coordinates of weights (n, 3)."""
    return {corner: float32(weights[:, i]) for i, corner in enumerate("abc")}


def _color_range(merit: FloatArray) -> dict[str, float]:
    """Range of the colors, from the tenth percentile on: the worst trials must not take most."""
    known = merit[np.isfinite(merit)]
    if len(known) == 0 or known.max() == known.min():
        return {}
    return {"cmin": float(np.quantile(known, 0.1)), "cmax": float(known.max())}
