"""What all figures share: their layout, their choice of trials, and how they write names."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report.plots.palette import CLEAR, GRAY, GRID, TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from optuna_demix.report.data import ReportData

MOST_POINTS = 500
"""Trials that a scatter shows at most: the best ones and an even choice of the others."""

MOST_PANELS = 9
"""Panels of a figure at most."""

_CROWD = 150  # points of a panel, from which on they are drawn smaller
_BEST_POINTS = 200  # of them the best ones
_HEIGHT = 450  # pixels: what a card of the dashboard has


def layout(figure: go.Figure, title: str, remark: str = "", *, top: int = 70) -> None:
    """Give a figure its title, a gray line under it, and ``top`` pixels for both."""
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "subtitle": {"text": remark, "font": {"size": 12, "color": GRAY}},
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
        # The dashboard draws what it is given on cards that may be dark: they show through, and
        # everything drawn is of a middle brightness.
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
    )
    figure.update_xaxes(gridcolor=GRID, linecolor=GRAY, zeroline=False, title_standoff=6)
    figure.update_yaxes(gridcolor=GRID, linecolor=GRAY, zeroline=False, automargin=True)
    figure.update_annotations(font={"size": 13})


def panels(
    titles: Sequence[str], *, x: str, y: str, vertical: float
) -> tuple[go.Figure, list[dict[str, int]]]:
    """A figure with a panel for each title, near a square of them.

    Args:
        titles: Of the panels, as they are to be shown.
        x: What the horizontal axes show; said under the lowest panels.
        y: What the vertical axes show; said beside the first column.
        vertical: Space between rows of panels, a share of the height.

    Returns:
        The figure, and where each panel is: its ``row`` and ``col``.
    """
    from plotly.subplots import make_subplots

    n = len(titles)
    columns = int(np.ceil(np.sqrt(n))) if n > 3 else n
    figure = make_subplots(
        -(-n // columns),
        columns,
        subplot_titles=list(titles),
        horizontal_spacing=0.12 / max(1, columns - 1),
        vertical_spacing=vertical,
    )
    places = [{"row": i // columns + 1, "col": i % columns + 1} for i in range(n)]
    for place in places[-columns:]:
        figure.update_xaxes(title=x, **place)
    figure.update_yaxes(title=y, col=1)
    figure.update_xaxes(nticks=4)
    figure.update_yaxes(nticks=6)
    return figure, places


def dots(n_points: int) -> dict[str, float]:
    """Size and opacity of the dots of a panel, smaller where there are many."""
    crowded = n_points > _CROWD
    return {"size": 4 if crowded else 5, "opacity": 0.5 if crowded else 0.8}


def thinned(data: ReportData, *, scale: float = 1.0) -> NDArray[np.intp]:
    """Indices of the trials that a scatter shows, by number; see :data:`MOST_POINTS`."""
    order = data.best_first()
    most = int(MOST_POINTS * scale)
    if len(order) <= most:
        return np.sort(order)
    n_best = int(_BEST_POINTS * scale)
    others = np.sort(order[n_best:])
    even = others[np.linspace(0, len(others) - 1, most - n_best).round().astype(np.intp)]
    return np.sort(np.concatenate([order[:n_best], np.unique(even)]))


def of_trials(shown: NDArray[np.intp], data: ReportData) -> str:
    """A remark that not all trials are shown, empty if they are."""
    total = int(np.isfinite(data.merit).sum())
    if len(shown) == total:
        return ""
    return f"{len(shown):,} of {total:,} trials shown, the best ones among them"


def joined(*remarks: str) -> str:
    """The remarks that are not empty, as one."""
    return "; ".join(remark for remark in remarks if remark)


def composite_title(data: ReportData) -> str:
    """Title of the axis of the composite."""
    if data.recommendation.composite == "rank":
        return "composite: share of random mixtures beaten"
    return f"composite: {data.recommendation.composite} of the objectives"


def float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32, which halves the size of a figure and has more digits than it can show."""
    return np.ascontiguousarray(values, dtype=np.float32)


def escaped(name: str) -> str:
    """A name as plotly shows it as it is: labels may hold HTML."""
    return html.escape(name, quote=False)
