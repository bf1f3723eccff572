"""What the best trials, the recommended mixture and the prior are made of, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.plots.palette import GRAY, colors_of
from optuna_demix.report.plots.style import escaped, float32, layout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData

_ROWS = 12  # trials
_MOST_PARTS = 12  # colors that can still be told apart; the smallest parts are added up


def plot_best_mixtures(data: ReportData) -> go.Figure:
    """Merge weights and data shares of the recommended mixture, the prior and the best trials."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    mixtures = data.recommendation.mixtures
    best = data.best_first()[:_ROWS]
    labels = ["recommended", "prior", *(f"trial {n}" for n in data.numbers[best])]
    fixed = np.stack([data.weights_of(name) for name in labels[:2]])
    weights = np.concatenate([fixed, data.weights[best]])  # (rows, K)
    merits = [mixtures[name].composite for name in labels[:2]] + data.composite[best].tolist()
    panels = [
        (data.space.components, weights),
        (data.space.datasets, data.space.data_shares(weights)),
    ]
    if panels[0][0] == panels[1][0] and np.allclose(panels[0][1], panels[1][1]):
        panels = panels[:1]  # every component was trained on its dataset alone
    titles = ["merge weights", "data shares (what to train on)"][: len(panels)]
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=titles)
    colors = colors_of([*data.space.components, *data.space.datasets])
    named: set[str] = set()
    for column, (names, table) in enumerate(panels, start=1):
        for name, part in parts_of(names, table):
            figure.add_trace(
                go.Bar(
                    name=escaped(name),
                    legendgroup=name,
                    showlegend=name not in named,
                    y=labels,
                    x=float32(100 * part),
                    orientation="h",
                    marker={"color": colors.get(name, GRAY), "line": {"width": 0}},
                    customdata=float32(np.array(merits)),
                    hovertemplate="%{y}<br>"
                    + escaped(name)
                    + " %{x:.1f} %<br>composite %{customdata:.3f}<extra></extra>",
                ),
                row=1,
                col=column,
            )
            named.add(name)
    layout(
        figure,
        f"The recommended mixture and the {len(best)} best trials",
        "by composite, the best one first",
        top=95,
    )
    figure.update_layout(barmode="stack", bargap=0.2)
    figure.update_xaxes(
        range=[0, 100], tickvals=[0, 50, 100], ticktext=["0 %", "50 %", "100 %"], showgrid=False
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def parts_of(names: Sequence[str], table: FloatArray) -> list[tuple[str, FloatArray]]:
    """Columns of a table (rows, K) with their names; of many, the smallest are added up."""
    if len(names) <= _MOST_PARTS:
        return [(name, table[:, i]) for i, name in enumerate(names)]
    order = np.argsort(-table.mean(axis=0), kind="stable")
    large, small = np.sort(order[: _MOST_PARTS - 1]), order[_MOST_PARTS - 1 :]
    parts = [(names[i], table[:, i]) for i in large]
    return [*parts, (f"{len(small)} others", table[:, small].sum(axis=1))]
