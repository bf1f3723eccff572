"""Numbers and names as the page writes them."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from optuna_demix.report.data import ReportData
    from optuna_demix.search import Mixture

Z90 = 1.6449  # half width of a 90 % interval in standard deviations
MINUS = "\u2212"
LABELS = {"recommended": "Recommended", "prior": "Prior", "uniform": "Uniform"}


def escaped(text: object) -> str:
    """A text as HTML shows it as it is."""
    return html.escape(str(text), quote=True)


def breakable(name: str) -> str:
    """A name that may be broken at its separators, and nowhere else."""
    return re.sub(r"(?<=[/_.,:-])(?=\w)", "<wbr>", escaped(name))


def percent(value: float | None, digits: int = 1) -> str:
    """A share; one that would round to 0 is 0."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{100 * value:.{digits}f}"
    return "0" if float(text) == 0.0 else text


def score(value: float) -> str:
    """A score in four digits after the point, fewer for large ones."""
    if not np.isfinite(value):
        return "–"
    return _minus(f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}")


def signed(value: float) -> str:
    """A difference of scores."""
    if not np.isfinite(value):
        return "–"
    return _minus(f"{value:+.4f}" if abs(value) < 10 else f"{value:+.4g}")


def merit(data: ReportData, value: float) -> str:
    """A composite; one that is a share stays within 0 and 1."""
    if data.recommendation.composite != "rank":
        return score(value)
    return f"{min(max(value, 0.0), 1.0):.3f}"


def interval(data: ReportData, mixture: Mixture, *, to: str = " to ") -> str:
    """The 90 % interval of a predicted composite, all objectives erring together."""
    mean = np.array(list(mixture.capabilities.values())) * data.signs
    std = Z90 * np.array([mixture.std.get(name, 0.0) for name in mixture.capabilities])
    low, high = data.recommendation.merit(np.stack([mean - std, mean + std]))
    return f"{merit(data, float(low))}{to}{merit(data, float(high))}"


def value_words(value: object) -> str:
    """The value of another parameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def correlation(value: float) -> str:
    """A correlation in two digits."""
    return _minus(f"{value:.2f}") if np.isfinite(value) else "–"


def label(data: ReportData, name: str) -> str:
    """Name of a mixture of the recommendation."""
    if name == "best_trial":
        return f"Best trial ({data.recommendation.best_trial})"
    return LABELS.get(name, name)


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
