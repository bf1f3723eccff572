"""Which component has which color: twenty that can be told apart, the others are gray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from optuna_demix.report.data import ReportData

PALETTE = (
    "#067abc", "#cbcb5f", "#ab244f", "#20e8cd", "#f6a2fe", "#4e6041", "#f1aa59",
    "#a0d6ef", "#65ae56", "#7e4886", "#fe7fb1", "#8e4a06", "#0b8c92", "#b6daaa",
    "#8e97fd", "#f9bbb5", "#68710c", "#8e5a58", "#ff7e71", "#ba9ec9",
)  # fmt: skip
"""Colors of even spacing in CIELAB, neighbours far from each other; seen on light and dark."""
OTHERS = "#8b929c"


def color_numbers(data: ReportData) -> dict[str, int]:
    """Number in the palette of components and datasets; those without one are the others.

    The largest have one: by merge weight or data share in the recommended mixture, the prior or
    the best trial.
    """
    size: dict[str, float] = {}
    for key in ("recommended", "prior", "best_trial"):
        weights = data.recommendation.mixtures[key].weights[data.space.name or ""]
        for part in (weights.merge_weights, weights.data_shares):
            for name, value in part.items():
                size[name] = max(size.get(name, 0.0), value)
    names = list(dict.fromkeys([*data.space.components, *data.space.datasets]))
    order = sorted(names, key=lambda name: -size.get(name, 0.0))
    chosen = set(order[: len(PALETTE)])
    return {name: i for i, name in enumerate(name for name in names if name in chosen)}


def text_color(color: str) -> str:
    """Black or white, whichever can be read on a color (WCAG 2.2, relative luminance)."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#fff"
