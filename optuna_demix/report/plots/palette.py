"""Colors that people with any kind of color vision can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

# Seen on white and on the dashboard's dark cards (#121212 and lighter) alike.
TEXT = "#7b7f84"
GRAY = "#8a949e"
GRID = "rgba(128,128,128,0.25)"
CLEAR = "rgba(0,0,0,0)"
GOOD = "#2b83ba"  # blue
RECOMMENDED = "#d55e00"  # vermilion
MERIT = "Cividis"
"""Color scale of the composite: even in brightness, the same for all kinds of vision."""
BETTER_WORSE = [
    [0.0, "#b35806"],
    [0.25, "#fdb863"],
    [0.5, "#f7f7f7"],
    [0.75, "#92c5de"],
    [1.0, "#2166ac"],
]
"""Color scale of changes: orange is worse, blue is better, white is none."""
# Okabe and Ito's eight (black left out), then tones between them for larger mixtures.
_PARTS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442",
    "#5e3c99", "#8c6d31", "#80cdc1", "#a6611a", "#7f7f7f", "#1b7837", "#c51b7d", "#b2abd2",
)  # fmt: skip


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """A color for each name; a long list uses them more than once."""
    distinct = list(dict.fromkeys(names))
    return {name: _PARTS[i % len(_PARTS)] for i, name in enumerate(distinct)}
