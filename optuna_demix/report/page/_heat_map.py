"""Which component moves which benchmark: a heat map that is a table, so that it can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.report.page._answer import swatch
from optuna_demix.report.page._words import MINUS, breakable, escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData

_SHOWN = 24  # components that are seen at once, those that move most first


def heat_map(data: ReportData, colors: Mapping[str, int]) -> str:
    """HTML of the predicted change of each benchmark for ten points more of each component."""
    spread = np.where(data.effects.spread > 0, data.effects.spread, 1.0)
    relative = (data.effects.change / spread[:, None]).T  # (K, b)
    order: NDArray[np.intp] = np.arange(len(relative))
    if len(relative) > _SHOWN:
        order = np.argsort(-np.abs(relative).max(axis=1), kind="stable")
    most = float(np.abs(relative).max(initial=0.0)) or 1.0
    benchmarks = data.effects.benchmarks
    rows = [_row(data.space.components[k], relative[k], most, colors) for k in order]
    shown = _table(benchmarks, rows[:_SHOWN], alternative(data, relative))
    if len(rows) <= _SHOWN:
        return shown
    rest = _table(benchmarks, rows[_SHOWN:], "Components that move the benchmarks less")
    summary = f"{len(rows) - _SHOWN} components that move them less"
    return f"{shown}<details><summary>{summary}</summary>{rest}</details>"


def alternative(data: ReportData, relative: FloatArray) -> str:
    """In words, which component helps each benchmark most."""
    helps = [
        f"{name}: {data.space.components[int(relative[:, j].argmax())]}"
        for j, name in enumerate(data.effects.benchmarks)
    ]
    return f"Change of each benchmark by component. Helped most, {'; '.join(helps)}."


def _table(benchmarks: Sequence[str], rows: Sequence[str], label: str) -> str:
    head = "".join(f'<th scope="col">{breakable(name)}</th>' for name in benchmarks)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(label)}">'
        f'<table class="heat"><caption class="hidden">{escaped(label)}</caption>'
        f'<thead><tr><th scope="col">Component</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, relative: FloatArray, most: float, colors: Mapping[str, int]) -> str:
    cells = []
    for value in relative:
        side = "better" if value >= 0 else "worse"
        strength = 100 * abs(value) / most
        text = f"{value:+.2f}".replace("-", MINUS)
        text = "0" if float(f"{value:.2f}") == 0.0 else text
        cells.append(f'<td class="{side}" style="--strength:{strength:.0f}%">{text}</td>')
    return f'<tr><th scope="row">{swatch(name, colors)}</th>{"".join(cells)}</tr>'
