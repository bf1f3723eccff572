"""How far a recommendation can be trusted, in sentences: the worst first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix._wording import counted
from optuna_demix.report.page._words import Z90, correlation
from optuna_demix.surrogate._validation import spearman, top_quarter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from optuna_demix.report.data import ReportData

_POOR = 0.3  # out-of-fold rank correlation up to which the surrogate does not rank mixtures
_FAIR = 0.6
_LEAST_PAIRS = 3  # trials that both proxies have scored, of which a rank correlation tells


class Level(IntEnum):
    """What a finding means for the recommendation."""

    GOOD = 0
    CAREFUL = 1
    POOR = 2


@dataclass(frozen=True)
class Finding:
    """One reason for or against the recommendation.

    Attributes:
        level: What it means.
        title: A few words.
        text: A sentence or two with the numbers.
    """

    level: Level
    title: str
    text: str


@dataclass(frozen=True)
class Agreement:
    """How both proxies rank the trials in one objective.

    Attributes:
        objective: Its name.
        n: Trials that both have scored.
        all: Rank correlation over all of them; NaN where it is undefined.
        best: The same among the best quarter, by the merged proxies.
    """

    objective: str
    n: int
    all: float
    best: float


def findings(data: ReportData) -> list[Finding]:
    """All findings, the worst first."""
    found = [_converged(data), _ranking(data), *_gain(data), *_proxies(data)]
    return sorted(found, key=lambda finding: -finding.level)


def agreements(data: ReportData) -> list[Agreement]:
    """How the proxies agree, for each objective that both have scored in enough trials."""
    found = []
    for j, name in enumerate(data.objectives):
        rows = both_proxies(data, j)
        if rows.sum() < _LEAST_PAIRS:
            continue
        merged, other = data.merged[rows, j], data.probability[rows, j]
        top = top_quarter(merged * data.signs[j])
        best = spearman(merged[top], other[top])
        found.append(Agreement(name, int(rows.sum()), spearman(merged, other), best))
    return found


def both_proxies(data: ReportData, j: int) -> NDArray[np.bool_]:
    """Mask (n,) of the trials that keep all constraints and have objective j of both proxies."""
    known: NDArray[np.bool_] = np.isfinite(data.merit)
    return known & np.isfinite(data.merged[:, j]) & np.isfinite(data.probability[:, j])


def _converged(data: ReportData) -> Finding:
    """Whether there are enough trials, and what more of them would add."""
    found = data.recommendation
    own = found.n_trials - found.n_warm
    state, _, reason = found.outlook.partition(": ")
    text = f"From {counted(own, 'finished trial')}"
    if found.n_warm:
        text += f" and {found.n_warm:,} of earlier studies"
    text += f": {reason}."
    if own < found.least_trials:
        level = Level.POOR if 2 * own < found.least_trials else Level.CAREFUL
        return Finding(level, "Too few trials to tell whether it has converged", text)
    return Finding(Level.GOOD if found.converged else Level.CAREFUL, state.capitalize(), text)


def _ranking(data: ReportData) -> Finding:
    validation, names = data.validation, data.effects.benchmarks
    known = np.isfinite(validation.spearman)
    if not known.any():
        text = "There are too few different scores to tell how well predictions rank mixtures."
        return Finding(Level.POOR, "Predictions not tested", text)
    mean = float(validation.spearman[known].mean())
    lowest = int(np.nanargmin(validation.spearman))
    text = f"Out-of-fold rank correlation of predictions and scores: {correlation(mean)}"
    if len(names) > 1:
        text += (
            f" in the mean of {counted(len(names), 'benchmark')}, lowest in {names[lowest]} "
            f"({correlation(float(validation.spearman[lowest]))})"
        )
    covered = validation.coverage[np.isfinite(validation.coverage)]
    if len(covered):
        text += f". The 90 % intervals held {100 * covered.mean():.0f} % of the scores"
    if mean <= _POOR:
        return Finding(Level.POOR, "Predictions hardly rank mixtures", f"{text}.")
    if mean <= _FAIR:
        return Finding(Level.CAREFUL, "Predictions rank mixtures roughly", f"{text}.")
    return Finding(Level.GOOD, "Predictions rank mixtures well", f"{text}.")


def _gain(data: ReportData) -> Iterator[Finding]:
    """What speaks against the recommended mixture beside others."""
    mixtures = data.recommendation.mixtures
    best, recommended = mixtures["best_trial"], mixtures["recommended"]
    if best.composite > recommended.composite + 1e-9:
        text = (
            "Its own prediction is better than that of the recommended mixture, which is a mean "
            "of several good candidates."
        )
        yield Finding(Level.CAREFUL, "The best trial is predicted to be better", text)
    unsure = []
    for j, name in enumerate(data.objectives):
        gain, half = difference(data, j, "recommended", "prior")
        if np.isfinite(half) and gain * data.signs[j] <= half:
            unsure.append(name)
    if len(unsure) == len(data.objectives):
        text = "In no objective is the gain over the prior larger than its 90 % interval."
        yield Finding(Level.CAREFUL, "No sure gain over the prior", text)
    elif unsure:
        text = f"Larger than its 90 % interval, except in {', '.join(unsure)}."
        yield Finding(Level.GOOD, "Gain over the prior", text)
    else:
        text = "In every objective, the gain over the prior is larger than its 90 % interval."
        yield Finding(Level.GOOD, "Sure gain over the prior", text)


def _proxies(data: ReportData) -> Iterator[Finding]:
    """Where merged models and token probabilities disagree."""
    found = agreements(data)
    if not found:
        return
    apart = [one for one in found if not one.all > _FAIR]
    words = ", ".join(f"{one.objective} {correlation(one.all)}" for one in apart or found)
    if apart:
        text = f"Rank correlation over the trials: {words}. One of the two is wrong there."
        yield Finding(Level.CAREFUL, "The two proxies disagree", text)
    else:
        text = f"Rank correlation of merged models and token probabilities: {words}."
        yield Finding(Level.GOOD, "The two proxies agree", text)


def difference(data: ReportData, j: int, name: str, other: str) -> tuple[float, float]:
    """Predicted difference of two mixtures in objective j, and half its 90 % interval.

    Errors count as independent: the interval is too wide where both mixtures err alike.
    """
    objective = data.objectives[j]
    a, b = (data.recommendation.mixtures[key] for key in (name, other))
    half = Z90 * float(np.hypot(a.std.get(objective, np.nan), b.std.get(objective, np.nan)))
    return a.capabilities[objective] - b.capabilities[objective], half
