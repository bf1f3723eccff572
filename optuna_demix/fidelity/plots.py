"""A scatter plot of proxies against references, as SVG.

Browsers and Markdown viewers show SVG as it is, and writing it needs no plotting library.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from optuna_demix.fidelity.agreement import best_quarter
from optuna_demix.fidelity.comparison import MERGED, PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_demix._typing import FloatArray
    from optuna_demix.fidelity.result import Fidelity

_PROXIES = {
    MERGED: "score of the merged proxy",
    PROBABILITIES: "score of the probability mixture",
}
_SIZE = 420  # pixels of a panel, square
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 56, 16, 48
_TICKS = 5
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-size:14px;font-weight:bold}"
    ".g{stroke:#e3e3e3}.d{stroke:#999;stroke-dasharray:4 3}.p{fill:#4c78a8;fill-opacity:.75}"
    ".b{fill:#e45756;fill-opacity:.9}"
)


def scatter(fidelity: Fidelity, capability: str) -> str:
    """Draw the proxies of one capability over their references, one panel for each kind.

    Args:
        fidelity: The figures.
        capability: Which capability.

    Returns:
        An SVG document. The best quarter of the references is red, the dashed line is where proxy
        and reference score the same.
    """
    panels = []
    for proxy, axis in _PROXIES.items():
        if proxy not in fidelity.proxies:
            continue
        found = fidelity.proxies[proxy].capabilities.get(capability)
        if found is None:
            continue
        parts = [f"Spearman {_shown(found.spearman.value)}"]
        if found.spearman.low is not None and found.spearman.high is not None:
            parts[0] += f" [{found.spearman.low:.2f}, {found.spearman.high:.2f}]"
        parts.append(f"best quarter {_shown(found.top_quarter.value)}")
        parts.append(f"recovery {_shown(found.recovery.value)}")
        trained, scores = fidelity.capability_scores(capability, proxy)
        axes = ("score of the trained reference", axis)
        panels.append(_panel(trained, scores, capability, ", ".join(parts), axes))
    return _document(panels)


def draw(
    x: FloatArray,
    y: FloatArray,
    *,
    title: str,
    subtitle: str,
    axes: tuple[str, str],
) -> str:
    """Draw points (n,), (n,) on axes of their own, the best quarter by ``x`` in red."""
    return _document([_panel(x, y, title, subtitle, axes)])


def _document(panels: Sequence[Sequence[str]]) -> str:
    """Panels side by side."""
    width = _SIZE * len(panels)
    marks = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_SIZE}" '
        f'width="{width}" height="{_SIZE}"><style>{_STYLE}</style>',
        f'<rect width="{width}" height="{_SIZE}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        marks += [f'<g transform="translate({number * _SIZE} 0)">', *panel, "</g>"]
    return "\n".join([*marks, "</svg>\n"])


def _panel(
    x: FloatArray, y: FloatArray, title: str, subtitle: str, axes: tuple[str, str]
) -> list[str]:
    across, up = _Axis(x, _LEFT, _SIZE - _RIGHT), _Axis(y, _SIZE - _BOTTOM, _TOP)
    marks = [
        f'<text class="t" x="{_LEFT}" y="20">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="40">{escape(subtitle)}</text>',
    ]
    for tick in across.ticks:
        at = across(tick)
        marks.append(_line(at, _TOP, at, _SIZE - _BOTTOM, "g"))
        marks.append(
            f'<text x="{at:.1f}" y="{_SIZE - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in up.ticks:
        at = up(tick)
        marks.append(_line(_LEFT, at, _SIZE - _RIGHT, at, "g"))
        marks.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    low, high = max(across.low, up.low), min(across.high, up.high)
    if low < high:
        marks.append(_line(across(low), up(low), across(high), up(high), "d"))
    for a, b, best in zip(x.tolist(), y.tolist(), best_quarter(x).tolist(), strict=True):
        kind = "b" if best else "p"
        marks.append(f'<circle class="{kind}" cx="{across(a):.1f}" cy="{up(b):.1f}" r="4"/>')
    middle = (_TOP + _SIZE - _BOTTOM) / 2
    marks += [
        f'<text x="{(_LEFT + _SIZE - _RIGHT) / 2}" y="{_SIZE - 10}" text-anchor="middle">'
        f"{escape(axes[0])}</text>",
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes[1])}</text>",
    ]
    return marks


class _Axis:
    """Maps values to pixels, with room around them."""

    def __init__(self, values: FloatArray, start: float, end: float) -> None:
        low, high = float(values.min()), float(values.max())
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        part = (value - self.low) / (self.high - self.low)
        return self._start + part * (self._end - self._start)

    @property
    def ticks(self) -> list[float]:
        """About five round values on the axis."""
        raw = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * min((m for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw), default=10.0)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(i * step, 12) for i in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
