"""How well the scores of proxies agree with those of really trained models, as numbers.

The measures are those of DeMix (arXiv 2602.00747, Table 2): Spearman's rank correlation over all
references, the same within the best quarter of them, and recovery, the ratio of the proxies'
score to the references'. Kendall's tau-b and bootstrap intervals are added. Where there is nothing
to compare, a measure is None, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

RESAMPLES = 2000
"""Bootstrap resamples behind an interval."""

_LEAST_RANKED = 3  # the rank correlation of two points is always 1 or -1
_LEAST_DEFINED = 0.9  # share of resamples in which a measure must exist to have an interval


@dataclass(frozen=True)
class Estimate:
    """A measure and its 95 % bootstrap interval over the references.

    Attributes:
        value: The measure; None where it is undefined.
        low: Lower end of the interval; None where it is undefined in too many resamples.
        high: Upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How proxies agree with references on one benchmark, one capability, or on the whole.

    Attributes:
        spearman: Rank correlation over all references.
        top_quarter: The same among the references whose own score is in the best quarter.
        kendall: Kendall's tau-b over all references.
        recovery: Mean score of the proxies over that of the references, or its inverse for a
            score of which less is better: below 1 always means worse than trained.
    """

    spearman: Estimate
    top_quarter: Estimate
    kendall: Estimate
    recovery: Estimate


_Samples = dict[str, "dict[str, FloatArray]"]  # name: measure: its values (B,)
_MEASURES = ("spearman", "top_quarter", "kendall", "recovery")


def agreements(
    proxies: Mapping[str, FloatArray],
    references: Mapping[str, FloatArray] | Sequence[Mapping[str, FloatArray]],
    capabilities: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Agreement], dict[str, Agreement], Agreement]:
    """Measure how proxies agree with references.

    A capability is the mean of its benchmarks and is ranked as such; its recovery is the mean of
    its benchmarks', whose units may differ. The macro figures are means over the capabilities in
    which a measure exists in all. Every interval resamples the same references, so that a
    macro interval reflects how capabilities vary together.

    Args:
        proxies: Scores (n,) of the proxies by benchmark, higher is better.
        references: Scores (n,) of the references, in the same order; of several trainings of
            them a sequence, whose measures are averaged.
        capabilities: Benchmarks of each capability.
        seed: Of the resamples.
        resamples: Number of them.

    Returns:
        By benchmark, by capability, and macro.
    """
    trainings = [references] if isinstance(references, Mapping) else list(references)
    n = len(next(iter(proxies.values())))
    rows = np.random.default_rng([seed, n]).integers(n, size=(resamples, n))
    picks = np.concatenate([np.arange(n)[None], rows])  # (1 + resamples, n); first: as it is
    found = [_sampled(proxies, training, capabilities, picks) for training in trainings]

    def mean(part: int, name: str) -> Agreement:
        each = [one[part][name] for one in found]
        return _agreement({m: np.mean([values[m] for values in each], axis=0) for m in _MEASURES})

    return (
        {name: mean(0, name) for name in trainings[0]},
        {name: mean(1, name) for name in capabilities},
        mean(2, "macro"),
    )


def _sampled(
    proxies: Mapping[str, FloatArray],
    references: Mapping[str, FloatArray],
    capabilities: Mapping[str, Sequence[str]],
    picks: NDArray[np.intp],
) -> tuple[_Samples, _Samples, _Samples]:
    """Every measure in samples of references, picks (B, n): by benchmark, capability, macro."""
    by_benchmark = {
        name: _measured(proxies[name][picks], references[name][picks]) for name in references
    }
    by_capability = {}
    for capability, names in capabilities.items():
        p = np.mean([proxies[name] for name in names], axis=0)
        r = np.mean([references[name] for name in names], axis=0)
        values = _measured(p[picks], r[picks])
        values["recovery"] = np.mean([by_benchmark[name]["recovery"] for name in names], axis=0)
        by_capability[capability] = values
    macro = {
        measure: np.mean([values[measure] for values in by_capability.values()], axis=0)
        for measure in _MEASURES
    }
    return by_benchmark, by_capability, {"macro": macro}


def _measured(p: FloatArray, r: FloatArray) -> dict[str, FloatArray]:
    """Every measure of each of B samples of proxies (B, n) and references (B, n), each (B,)."""
    return {
        "spearman": spearman_rows(p, r),
        "top_quarter": np.array([_top_quarter(*pair) for pair in zip(p, r, strict=True)]),
        "kendall": kendall_rows(p, r),
        "recovery": _recovery(p, r),
    }


def spearman_rows(a: FloatArray, b: FloatArray) -> FloatArray:
    """Spearman's correlation (B,) of paired rows (B, n); NaN where one is constant or short."""
    from scipy.stats import rankdata

    if a.shape[1] < _LEAST_RANKED:
        return np.full(len(a), np.nan)
    ranks_a, ranks_b = rankdata(a, axis=1), rankdata(b, axis=1)
    ranks_a -= ranks_a.mean(axis=1, keepdims=True)
    ranks_b -= ranks_b.mean(axis=1, keepdims=True)
    scale = np.sqrt((ranks_a**2).sum(axis=1) * (ranks_b**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: FloatArray = (ranks_a * ranks_b).sum(axis=1) / scale
    return rho


def kendall_rows(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kendall's tau-b (B,) of paired rows (B, n); NaN where one is constant or short."""
    n = a.shape[1]
    if n < _LEAST_RANKED:
        return np.full(len(a), np.nan)
    left, right = np.triu_indices(n, k=1)
    tau = np.empty(len(a))
    for i, (x, y) in enumerate(zip(a, b, strict=True)):  # all rows at once need B times n² numbers
        signs_x = np.sign(x[left] - x[right])
        signs_y = np.sign(y[left] - y[right])
        scale = math.sqrt(float((signs_x @ signs_x) * (signs_y @ signs_y)))
        tau[i] = float(signs_x @ signs_y) / scale if scale > 0 else math.nan
    return tau


def best_quarter(r: FloatArray) -> NDArray[np.bool_]:
    """Mask (n,) of the references whose score reaches the upper quartile."""
    mask: NDArray[np.bool_] = r >= np.quantile(r, 0.75)
    return mask


def _top_quarter(p: FloatArray, r: FloatArray) -> float:
    best = best_quarter(r)
    return float(spearman_rows(p[None, best], r[None, best])[0])


def _recovery(p: FloatArray, r: FloatArray) -> FloatArray:
    """Ratio of mean scores (B,); scores below 0 are negated measures of which less is better.

    NaN where proxies and references do not have one sign: such a ratio means nothing.
    """
    mean_p, mean_r = p.mean(axis=1), r.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(mean_r > 0, mean_p / mean_r, mean_r / mean_p)
    ratio[~(mean_p * mean_r > 0)] = np.nan
    return np.asarray(ratio, dtype=float)


def _agreement(values: Mapping[str, FloatArray]) -> Agreement:
    return Agreement(**{measure: _estimate(values[measure]) for measure in _MEASURES})


def _estimate(values: FloatArray) -> Estimate:
    """The first value and the interval of the others."""
    value, others = float(values[0]), values[1:]
    if not math.isfinite(value):
        return Estimate(None)
    defined = others[np.isfinite(others)]
    if len(defined) < max(_LEAST_DEFINED * len(others), 1):
        return Estimate(value)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value, float(low), float(high))
