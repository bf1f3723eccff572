"""The plots of a report: pure functions from :class:`ReportData` to plotly figures.

They are made for a card of ``optuna-dashboard``: half a page wide, 450 pixels high. Arrays are
float32 and long studies are thinned, because each push writes the figures to the database.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report._palette import (
    BETTER_WORSE,
    GOOD,
    GREY,
    MERIT,
    RECOMMENDED,
    TEXT,
    colors_of,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix.report.data import ReportData

    FloatArray = NDArray[np.float64]

MOST_POINTS = 500
"""Trials that a scatter shows at most: the best ones and an even choice of the others."""

_BEST_POINTS = 200
_BEST_ROWS = 12  # trials in the plot of the best mixtures
_MOST_PARTS = 12  # colours that can still be told apart; the smallest parts are added up
_MOST_PANELS = 9
_MOST_CELLS = 120  # cells of a heat map that still have room for a number
_CROWD = 150  # points of one panel from which on they are drawn smaller
_HEIGHT = 450  # pixels: what a card of the dashboard has


def figures(data: ReportData) -> dict[str, go.Figure]:
    """All figures of a report by their identifier, in reading order."""
    return {
        "demix-convergence": convergence(data),
        "demix-best-mixtures": best_mixtures(data),
        "demix-mixture-map": mixture_map(data),
        "demix-effects": effects(data),
        "demix-predictions": predictions(data),
    }


def convergence(data: ReportData) -> go.Figure:
    """Composite of each trial, the best so far, and what the recommended mixture promises."""
    import plotly.graph_objects as go

    shown = _thinned(data)
    kept = np.isfinite(data.merit)
    steps, best = _steps(data.numbers[kept], data.merit[kept])
    recommended = data.recommendation.mixtures["recommended"].composite
    prior = data.recommendation.mixtures["prior"].composite
    figure = go.Figure(
        [
            go.Scatter(
                name="trial",
                x=data.numbers[shown].astype(np.int32),
                y=_small(data.merit[shown]),
                mode="markers",
                marker={"color": GREY, "size": 5, "opacity": 0.7},
                customdata=_small(data.values[shown]),
                hovertemplate="trial %{x}<br>composite %{y:.3f}"
                + _hover(data.objectives)
                + "<extra></extra>",
            ),
            go.Scatter(
                name="best so far",
                x=steps.astype(np.int32),
                y=_small(best),
                mode="lines",
                line={"color": GOOD, "shape": "hv", "width": 2},
                hovertemplate="from trial %{x} on<br>composite %{y:.3f}<extra></extra>",
            ),
            _level(go, "recommended (predicted)", recommended, data.numbers, RECOMMENDED, "dash"),
            _level(go, "prior (predicted)", prior, data.numbers, TEXT, "dot"),
        ]
    )
    _layout(figure, "Convergence", _of(shown, data))
    figure.update_xaxes(title="trial", rangemode="tozero")
    figure.update_yaxes(title=_composite_title(data))
    return figure


def best_mixtures(data: ReportData) -> go.Figure:
    """Merge weights and data shares of the recommended mixture, the prior and the best trials."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    mixtures = data.recommendation.mixtures
    best = data.best_first()[:_BEST_ROWS]
    labels = ["recommended", "prior", *(f"trial {n}" for n in data.numbers[best])]
    fixed = [list(mixtures[name].merge_weights.values()) for name in labels[:2]]
    weights = np.concatenate([np.array(fixed), data.weights[best]])  # (rows, K)
    merits = [mixtures[name].composite for name in labels[:2]] + data.merit[best].tolist()
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
        for name, part in _parts(names, table):
            figure.add_trace(
                go.Bar(
                    name=_text(name),
                    legendgroup=name,
                    showlegend=name not in named,
                    y=labels,
                    x=_small(100 * part),
                    orientation="h",
                    marker={"color": colors.get(name, GREY), "line": {"width": 0}},
                    customdata=_small(np.array(merits)),
                    hovertemplate="%{y}<br>"
                    + _text(name)
                    + " %{x:.1f} %<br>composite %{customdata:.3f}<extra></extra>",
                ),
                row=1,
                col=column,
            )
            named.add(name)
    _layout(
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


def mixture_map(data: ReportData) -> go.Figure:
    """Where the trials lie in the triangle of the three largest components of the recommendation.

    With two components it is a plain scatter of the composite over the weight of the first.
    """
    import plotly.graph_objects as go

    recommended = np.array(list(data.recommendation.merge_weights.values()))
    prior = np.asarray(data.space.prior)
    chosen = np.sort(np.argsort(-recommended, kind="stable")[:3])
    names = [data.space.components[i] for i in chosen]
    shown = _thinned(data)
    shown = shown[np.argsort(data.merit[shown], kind="stable")]  # the best ones on top
    marker: dict[str, Any] = {
        "color": _small(data.merit[shown]),
        "colorscale": MERIT,
        "opacity": 0.9,
        "colorbar": {"title": {"text": "composite", "side": "right"}, "thickness": 12},
        **_color_range(data.merit),
    }
    hover = {
        "customdata": _small(np.column_stack([data.numbers[shown], 100 * data.weights[shown]])),
        "hovertemplate": "trial %{customdata[0]:d}<br>composite %{marker.color:.3f}"
        + "".join(
            f"<br>{_text(name)} %{{customdata[{i}]:.1f}} %"
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
                marker={"size": _small(np.where(visible, 4 + 5 * covered[shown], 0)), **marker},
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
                "title": {"text": _text(name), "font": {"size": 13}},
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
    remark = _joined(f"colour: composite{size}", _of(shown, data))
    _layout(
        figure, "The mixtures tried" + " (three largest components)" * bool(size), remark, top=95
    )
    return figure


def effects(data: ReportData) -> go.Figure:
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
            z=_small(relative),
            x=[_text(name) for name in data.space.components],
            y=[_text(name) for name in data.effects.benchmarks],
            customdata=_small(data.effects.change),
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
    _layout(
        figure,
        "Which component moves which benchmark",
        "predicted change for 10 points more of a component and less of all others; blue: better",
    )
    figure.update_xaxes(automargin=True, showgrid=False)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    return figure


def predictions(data: ReportData) -> go.Figure:
    """Predicted against actual objective values: when proposed, and cross-validated."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names = data.objectives[:_MOST_PANELS]
    columns = int(np.ceil(np.sqrt(len(names)))) if len(names) > 3 else len(names)
    figure = make_subplots(
        -(-len(names) // columns),
        columns,
        subplot_titles=[_text(name) for name in names],
        horizontal_spacing=0.12 / max(1, columns - 1),
        vertical_spacing=0.14,
    )
    shown = _thinned(data, scale=1 / len(names) ** 0.5)
    crowded = len(shown) > _CROWD
    dot = {"size": 4 if crowded else 5, "opacity": 0.5 if crowded else 0.8}
    kinds = [
        ("held-out prediction", data.held_out, data.held_out_std, GREY, "circle-open"),
        ("predicted when proposed", data.proposed, data.proposed_std, GOOD, "circle"),
    ]
    for j in range(len(names)):
        place = {"row": j // columns + 1, "col": j % columns + 1}
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
                    x=_small(mean[rows, j]),
                    y=_small(data.values[rows, j]),
                    mode="markers",
                    marker={"color": color, "symbol": symbol, **dot},
                    customdata=_small(np.column_stack([data.numbers[rows], std[rows, j]])),
                    hovertemplate="trial %{customdata[0]:d}<br>predicted %{x:.4g} "
                    "±%{customdata[1]:.2g}<br>actual %{y:.4g}<extra></extra>",
                ),
                **place,
            )
        figure.update_xaxes(title="predicted" if j >= len(names) - columns else None, **place)
    figure.update_yaxes(title="actual", col=1)
    figure.update_xaxes(nticks=4)
    figure.update_yaxes(nticks=6)
    _layout(
        figure,
        "Predicted against actual",
        _joined("dotted: as predicted", _of(shown, data)),
        top=95,
    )
    return figure


# What the plots share ------------------------------------------------------------------------


def _layout(figure: go.Figure, title: str, remark: str = "", *, top: int = 70) -> None:
    """Give a figure its title, a grey line under it, and ``top`` pixels for both."""
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "subtitle": {"text": remark, "font": {"size": 12, "color": GREY}},
            "x": 0.02,
            "xanchor": "left",
            "y": 0.96,
            "yanchor": "top",
            "font": {"size": 16},
        },
        font={"size": 12, "color": TEXT},
        height=_HEIGHT,
        margin={"l": 70, "r": 20, "t": top, "b": 80},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0.01}
        | {"xref": "container", "xanchor": "center", "x": 0.5},
        hoverlabel={"align": "left"},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    figure.update_xaxes(gridcolor="#e6e8eb", linecolor="#999", zeroline=False, title_standoff=6)
    figure.update_yaxes(gridcolor="#e6e8eb", linecolor="#999", zeroline=False, automargin=True)
    figure.update_annotations(font={"size": 13})


def _level(
    go: Any, name: str, value: float, numbers: NDArray[np.int64], color: str, dash: str
) -> go.Scatter:
    """A horizontal line over all trials."""
    return go.Scatter(
        name=name,
        x=[int(numbers[0]), int(numbers[-1])],
        y=[value, value],
        mode="lines",
        line={"color": color, "dash": dash, "width": 1.5},
        hovertemplate=f"{name}<br>composite %{{y:.3f}}<extra></extra>",
    )


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
            x=_small(data.weights[shown, 0]),
            y=_small(data.merit[shown]),
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
    figure.update_xaxes(title=_text(data.space.components[0]), tickformat=".0%")
    figure.update_yaxes(title=_composite_title(data))
    return figure


def _thinned(data: ReportData, *, scale: float = 1.0) -> NDArray[np.intp]:
    """Indices of the trials that a scatter shows, by number; see :data:`MOST_POINTS`."""
    order = data.best_first()
    most = int(MOST_POINTS * scale)
    if len(order) <= most:
        return np.sort(order)
    n_best = int(_BEST_POINTS * scale)
    others = np.sort(order[n_best:])
    even = others[np.linspace(0, len(others) - 1, most - n_best).round().astype(np.intp)]
    return np.sort(np.concatenate([order[:n_best], np.unique(even)]))


def _of(shown: NDArray[np.intp], data: ReportData) -> str:
    """A remark where not all trials are shown."""
    total = int(np.isfinite(data.merit).sum())
    if len(shown) == total:
        return ""
    return f"{len(shown):,} of {total:,} trials shown, the best ones among them"


def _joined(*remarks: str) -> str:
    return "; ".join(remark for remark in remarks if remark)


def _steps(numbers: NDArray[np.int64], merit: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Trials (s,) at which the best so far rises, and the last one; and what it is then (s,)."""
    best = np.maximum.accumulate(merit)
    rises = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    places = np.unique([*rises.tolist(), len(best) - 1]).astype(np.intp)
    return numbers[places], best[places]


def _parts(names: Sequence[str], table: FloatArray) -> list[tuple[str, FloatArray]]:
    """Columns of a table (rows, K) with their names; the smallest of many added up as one."""
    if len(names) <= _MOST_PARTS:
        return [(name, table[:, i]) for i, name in enumerate(names)]
    order = np.argsort(-table.mean(axis=0), kind="stable")
    large, small = np.sort(order[: _MOST_PARTS - 1]), order[_MOST_PARTS - 1 :]
    parts = [(names[i], table[:, i]) for i in large]
    return [*parts, (f"{len(small)} others", table[:, small].sum(axis=1))]


def _corners(weights: FloatArray) -> dict[str, NDArray[np.float32]]:
    """Ternary coordinates of weights (n, 3)."""
    return {corner: _small(weights[:, i]) for i, corner in enumerate("abc")}


def _color_range(merit: FloatArray) -> dict[str, float]:
    """Colours from the tenth percentile on: the few worst trials must not take them all."""
    known = merit[np.isfinite(merit)]
    if len(known) == 0 or known.max() == known.min():
        return {}
    return {"cmin": float(np.quantile(known, 0.1)), "cmax": float(known.max())}


def _span(*arrays: FloatArray) -> list[float]:
    """Least and largest finite value of some arrays."""
    values = np.concatenate(arrays)
    values = values[np.isfinite(values)]
    return [float(values.min()), float(values.max())] if len(values) else [0.0, 1.0]


def _hover(names: Sequence[str]) -> str:
    return "".join(f"<br>{_text(name)} %{{customdata[{i}]:.4g}}" for i, name in enumerate(names))


def _composite_title(data: ReportData) -> str:
    if data.recommendation.composite == "rank":
        return "composite: share of random mixtures beaten"
    return f"composite: {data.recommendation.composite} of the objectives"


def _small(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32: half the bytes, and more digits than a plot can show."""
    return np.ascontiguousarray(values, dtype=np.float32)


def _text(name: str) -> str:
    """A name as plotly shows it as it is: labels may hold HTML."""
    return html.escape(name, quote=False)
