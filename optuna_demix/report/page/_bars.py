"""What mixtures are made of, as stacked bars of plain HTML: they need no script to be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.page import _words as words
from optuna_demix.report.page._answer import swatch
from optuna_demix.report.page._what_if import is_plain
from optuna_demix.report.page._words import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData

_TRIALS = 8
_NUMBERED = 0.06  # shares from here on have room for their number
_FIXED = ("recommended", "prior", "uniform")


def bars(data: ReportData, colors: Mapping[str, int]) -> str:
    """HTML of merge weights and data shares of the recommended mixture, its rivals and trials."""
    best = data.best_first()[:_TRIALS]
    labels = [words.label(data, name) for name in _FIXED]
    labels += [f"Trial {number}" for number in data.numbers[best]]
    weights = np.stack([*(data.weights_of(name) for name in _FIXED), *data.weights[best]])
    mixtures = data.recommendation.mixtures
    merits = [mixtures[name].composite for name in _FIXED] + data.merit[best].tolist()
    merits = [words.merit(data, value) for value in merits]
    shares = data.space.data_shares(weights)
    panels = [("Merge weights", data.space.components, weights)]
    panels.append(("Data shares: what to train on", data.space.datasets, shares))
    if is_plain(data.space):
        panels = panels[1:]
    drawn = [
        f"<h3>{title}</h3>{_panel(title, names, table, labels, merits, colors)}"
        for title, names, table in panels
    ]
    return "".join(drawn) + _legend(data, colors)


def _panel(
    title: str,
    names: Sequence[str],
    table: FloatArray,
    labels: Sequence[str],
    merits: Sequence[str],
    colors: Mapping[str, int],
) -> str:
    """One bar for each row of a table (rows, K)."""
    rows = []
    for label, row, merit in zip(labels, table, merits, strict=True):
        parts = [(name, value) for name, value in zip(names, row, strict=True) if name in colors]
        others = float(sum(row)) - sum(value for _, value in parts)
        parts.append(("others", others))
        segments = "".join(_segment(name, value, colors) for name, value in parts)
        rows.append(
            f'<div class="stack"><span class="name">{escaped(label)}</span>'
            f'<span class="track">{segments}</span><span class="merit">{merit}</span></div>'
        )
    largest = [
        f"{label}: " + ", ".join(f"{names[k]} {100 * row[k]:.0f} %" for k in np.argsort(-row)[:4])
        for label, row in zip(labels[:2], table, strict=False)
    ]
    alt = f"{title} as stacked bars, the composite at the end. {'; '.join(largest)}."
    return (
        f'<div class="stacks" role="img" aria-label="{escaped(alt)}">'
        '<div class="stack head"><span></span><span></span>'
        f'<span class="merit">composite</span></div>{"".join(rows)}</div>'
    )


def _segment(name: str, value: float, colors: Mapping[str, int]) -> str:
    if value < 5e-4:
        return ""
    number = f"{100 * value:.0f}" if value >= _NUMBERED else ""
    title = escaped(f"{name} {100 * value:.1f} %")
    kind = colors.get(name, "x")
    return f'<i class="c{kind}" style="flex-grow:{value:.4f}" title="{title}">{number}</i>'


def _legend(data: ReportData, colors: Mapping[str, int]) -> str:
    names = dict.fromkeys([*data.space.components, *data.space.datasets])
    items = [f"<li>{swatch(name, colors)}</li>" for name in names if name in colors]
    n_others = sum(name not in colors for name in names)
    if n_others:
        items.append(f'<li><span class="swatch cx"></span>{n_others} others</li>')
    return f'<ul class="legend" aria-label="Colors">{"".join(items)}</ul>'
