"""Numbers of the plots that scripts draw, and each plot in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.report.page import _words as words
from optuna_demix.report.page.trust import agreements, both_proxies
from optuna_demix.report.plots.style import MOST_PANELS, composite_title, of_trials, thinned
from optuna_demix.surrogate._validation import spearman, top_quarter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_demix._typing import FloatArray
    from optuna_demix.report.data import ReportData

_COMPONENTS = 20  # rows of the plot of weights
_ROW = 20  # pixels of each: the plot beside it is as high
_LEAST_HEIGHT = 280


def charts(data: ReportData, colors: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Each plot by its identifier: what it shows, its title, a remark, and the plot in words."""
    drawn = {"convergence": _convergence(data), "weights": _weights(data, colors)}
    drawn["predictions"] = _predictions(data)
    if agreements(data):
        drawn["proxies"] = _proxies(data)
    return drawn


def _convergence(data: ReportData) -> dict[str, Any]:
    shown = thinned(data)
    kept = np.isfinite(data.merit)
    numbers, best = data.numbers[kept], np.maximum.accumulate(data.merit[kept])
    mixtures = data.recommendation.mixtures
    levels = [
        {"name": words.LABELS[key], "value": mixtures[key].composite, "kind": key}
        for key in ("recommended", "prior")
    ]
    alt = ""
    if len(best):
        alt = (
            f"Composite of {len(best):,} trials. The best so far rose from "
            f"{words.merit(data, best[0])} at trial {numbers[0]} to "
            f"{words.merit(data, best[-1])} at trial {numbers[int(np.argmax(best))]}. "
            f"Predicted: recommended {words.merit(data, mixtures['recommended'].composite)}, "
            f"prior {words.merit(data, mixtures['prior'].composite)}."
        )
    return {
        "title": "Convergence",
        "remark": of_trials(shown, data),
        "alt": alt,
        "y": composite_title(data),
        "height": max(_LEAST_HEIGHT, _ROW * min(len(data.space), _COMPONENTS) + 70),
        "clip": data.recommendation.composite == "rank",
        "numbers": data.numbers[shown].tolist(),
        "values": _rounded(data.merit[shown]),
        "bestAt": numbers.tolist(),
        "best": _rounded(best),
        "levels": levels,
    }


def _weights(data: ReportData, colors: Mapping[str, int]) -> dict[str, Any]:
    """Weights of the trials by component, the good trials told from the others."""
    recommended, prior = data.weights_of("recommended"), np.asarray(data.space.prior)
    size = np.maximum(recommended, prior)
    chosen = np.sort(np.argsort(-size, kind="stable")[:_COMPONENTS])
    shown = thinned(data)
    shown = shown[np.argsort(data.merit[shown], kind="stable")]
    good = top_quarter(data.merit[shown])
    left_out = len(data.space) - len(chosen)
    remark = f"the {len(chosen)} largest of {len(data.space)} components" if left_out else ""
    moved = np.argsort(-np.abs(recommended - prior))[:3]
    changes = ", ".join(
        f"{data.space.components[k]} from {100 * prior[k]:.0f} to {100 * recommended[k]:.0f} %"
        for k in moved
    )
    return {
        "title": "Weights that were tried",
        "remark": remark,
        "alt": f"Merge weights of the trials by component. From prior to recommended: {changes}.",
        "names": [data.space.components[k] for k in chosen],
        "colors": [colors.get(data.space.components[k], "x") for k in chosen],
        "weights": _rounded(data.weights[shown][:, chosen]),
        "numbers": data.numbers[shown].tolist(),
        "good": good.tolist(),
        "recommended": _rounded(recommended[chosen]),
        "prior": _rounded(prior[chosen]),
    }


def _predictions(data: ReportData) -> dict[str, Any]:
    names = data.objectives[:MOST_PANELS]
    shown = thinned(data, scale=1 / len(names) ** 0.5)
    panels = []
    for j, name in enumerate(names):
        panels.append(
            {
                "name": name,
                "x": _rounded(data.held_out[shown, j]),
                "y": _rounded(data.values[shown, j]),
                "halves": _rounded(words.Z90 * data.held_out_std[shown, j]),
            }
        )
    ranks = [_rho(data.held_out, data.values, j) for j in range(len(names))]
    told = ", ".join(f"{name} {rank}" for name, rank in zip(names, ranks, strict=True))
    return {
        "title": "Predicted against measured",
        "remark": of_trials(shown, data),
        "alt": f"Measured over held-out predicted scores. Rank correlation: {told}.",
        "x": "predicted without the trial",
        "y": "measured",
        "diagonal": True,
        "numbers": data.numbers[shown].tolist(),
        "panels": panels,
    }


def _proxies(data: ReportData) -> dict[str, Any]:
    found = agreements(data)[:MOST_PANELS]
    shown = thinned(data, scale=1 / len(found) ** 0.5)
    panels = []
    for one in found:
        j = data.objectives.index(one.objective)
        rows = both_proxies(data, j)[shown]
        x = np.where(rows, data.probability[shown, j], np.nan)
        panels.append(
            {
                "name": f"{one.objective}, rank correlation {words.correlation(one.all)}",
                "x": _rounded(x),
                "y": _rounded(data.merged[shown, j]),
            }
        )
    told = ", ".join(f"{one.objective} {words.correlation(one.all)}" for one in found)
    return {
        "title": "Merged models against token probabilities",
        "remark": of_trials(shown, data),
        "alt": f"Merged scores over those by token probabilities. Rank correlation: {told}.",
        "x": "by token probabilities",
        "y": "merged",
        "diagonal": False,
        "numbers": data.numbers[shown].tolist(),
        "panels": panels,
    }


def _rho(predicted: FloatArray, values: FloatArray, j: int) -> str:
    rows = np.isfinite(predicted[:, j]) & np.isfinite(values[:, j])
    return words.correlation(spearman(predicted[rows, j], values[rows, j]))


def _rounded(values: FloatArray) -> list[Any]:
    """In as many digits as a plot can show."""
    array = np.asarray(values, dtype=float)
    found: list[Any] = np.where(np.isfinite(array), np.round(array, 5), np.nan).tolist()
    return found
