"""Which component moves which benchmark, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report.plots.palette import BETTER_WORSE
from optuna_demix.report.plots.style import escaped, float32, layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_demix.report.data import ReportData

_MOST_CELLS = 120  # cells that still have room for a number


def plot_effects(data: ReportData) -> go.Figure:
    """Which component moves which benchmark: predicted change for ten points more of it."""
    import plotly.graph_objects as go

    spread = np.where(data.effects.spread > 0, data.effects.spread, 1.0)
    relative = data.effects.change / spread[:, None]  # (b, K)
    most = float(np.abs(relative).max(initial=0.0)) or 1.0
    text: dict[str, Any] = {}
    if relative.size <= _MOST_CELLS:
        rounded = np.round(relative, 2) + 0.0  # no -0.00
        text["text"] = [[f"{cell:+.2f}" for cell in row] for row in rounded]
        text["texttemplate"] = "%{text}"
    figure = go.Figure(
        go.Heatmap(
            z=float32(relative),
            x=[escaped(name) for name in data.space.components],
            y=[escaped(name) for name in data.effects.benchmarks],
            customdata=float32(data.effects.change),
            zmin=-most,
            zmax=most,
            colorscale=BETTER_WORSE,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "standard deviations", "side": "right"}, "thickness": 12},
            hovertemplate="10 points more %{x}<br>%{y}: %{customdata:+.4f} "
            "(%{z:+.2f} standard deviations)<extra></extra>",
            **text,
        )
    )
    layout(
        figure,
        "Which component moves which benchmark",
        "predicted change for 10 points more of a component and less of all others; blue: better",
    )
    figure.update_xaxes(automargin=True, showgrid=False)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    return figure
