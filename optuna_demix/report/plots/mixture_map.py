"""Trials on the simplex of the three largest components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report.plots.palette import (
    MERIT,
    RECOMMENDED,
)
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


def plot_mixture_map(data: ReportData) -> go.Figure:
    """Where the trials lie in the triangle of the three largest components of the recommendation.

    With two components it is a plain scatter of the composite over the weight of the first.
    """
    import plotly.graph_objects as go

    recommended = np.array(list(data.recommendation.merge_weights.values()))
    prior = np.asarray(data.space.prior)
    chosen = np.sort(np.argsort(-recommended, kind="stable")[:3])
    names = [data.space.components[i] for i in chosen]
    shown = thinned(data)
    shown = shown[np.argsort(data.merit[shown], kind="stable")]  # the best ones on top
    marker: dict[str, Any] = {
        "color": float32(data.merit[shown]),
        "colorscale": MERIT,
        "opacity": 0.9,
        "colorbar": {"title": {"text": "composite", "side": "right"}, "thickness": 12},
        **_color_range(data.merit),
    }
    hover = {
        "customdata": float32(np.column_stack([data.numbers[shown], 100 * data.weights[shown]])),
        "hovertemplate": "trial %{customdata[0]:d}<br>composite %{marker.color:.3f}"
        + "".join(
            f"<br>{escaped(name)} %{{customdata[{i}]:.1f}} %"
            for i, name in enumerate(data.space.components, start=1)
        )
        + "<extra></extra>",
    }
    special = [
        ("prior", prior, {"symbol": "diamond", "size": 12, "color": "white"}),
        ("recommended", recommended, {"symbol": "star", "size": 17, "color": RECOMMENDED}),
    ]
    if len(chosen) < 3:
        figure = _line_map(go, data, shown, marker, hover, special)
    else:
        covered = data.weights[:, chosen].sum(axis=1)
        visible = covered[shown] > 0.02  # with nothing of the three there is no place for it
        figure = go.Figure(
            go.Scatterternary(
                name="trial",
                **_corners(data.weights[shown][:, chosen]),
                mode="markers",
                # Size: how much of the mixture these three are.
                marker={"size": float32(np.where(visible, 4 + 5 * covered[shown], 0)), **marker},
                showlegend=False,
                **hover,
            )
        )
        for label, w, style in special:
            figure.add_trace(
                go.Scatterternary(
                    name=label,
                    **_corners(w[None, chosen]),
                    mode="markers",
                    marker={**style, "line": {"color": "black", "width": 1.2}},
                    hovertemplate=label + "<extra></extra>",
                )
            )
        axes = {
            axis: {
                "title": {"text": escaped(name), "font": {"size": 13}},
                "tickformat": ".0%",
                "tickvals": [0.2, 0.4, 0.6, 0.8],
                "gridcolor": "#d0d4da",
                "linecolor": "#666",
                "tickfont": {"size": 10},
            }
            for axis, name in zip(("aaxis", "baxis", "caxis"), names, strict=True)
        }
        figure.update_layout(ternary={"sum": 1, "bgcolor": "#f6f7f9", **axes})
    size = "; size: what share of the mixture these three are" if len(data.space) > 3 else ""
    remark = joined(f"colour: composite{size}", of_trials(shown, data))
    layout(
        figure, "The mixtures tried" + " (three largest components)" * bool(size), remark, top=95
    )
    return figure


def _line_map(
    go: Any,
    data: ReportData,
    shown: NDArray[np.intp],
    marker: Mapping[str, Any],
    hover: Mapping[str, Any],
    special: Sequence[tuple[str, FloatArray, dict[str, Any]]],
) -> go.Figure:
    """The map of two components, or of one: composite over the weight of the first."""
    figure = go.Figure(
        go.Scatter(
            name="trial",
            x=float32(data.weights[shown, 0]),
            y=float32(data.merit[shown]),
            mode="markers",
            marker={"size": 8, **marker},
            showlegend=False,
            **hover,
        )
    )
    for label, w, style in special:
        composite = data.recommendation.mixtures[label].composite
        figure.add_trace(
            go.Scatter(
                name=label,
                x=[float(w[0])],
                y=[composite],
                mode="markers",
                marker={**style, "line": {"color": "black", "width": 1.2}},
            )
        )
    figure.update_xaxes(title=escaped(data.space.components[0]), tickformat=".0%")
    figure.update_yaxes(title=composite_title(data))
    return figure


def _corners(weights: FloatArray) -> dict[str, NDArray[np.float32]]:
    """Ternary coordinates of weights (n, 3)."""
    return {corner: float32(weights[:, i]) for i, corner in enumerate("abc")}


def _color_range(merit: FloatArray) -> dict[str, float]:
    """Colours from the tenth percentile on: the few worst trials must not take them all."""
    known = merit[np.isfinite(merit)]
    if len(known) == 0 or known.max() == known.min():
        return {}
    return {"cmin": float(np.quantile(known, 0.1)), "cmax": float(known.max())}
