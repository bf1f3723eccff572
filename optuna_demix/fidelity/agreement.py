"""How well the scores of proxies agree with those of really trained models, as numbers.

The measures are those of DeMix (arXiv 2602.00747, Table 2): Spearman's rank correlation over all
references, the same within the best quarter of them, and recovery, the ratio of the proxies'
score to the references'. Kendall's tau-b and bootstrap intervals are added. Where there is nothing
to compare, a measure is None, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray

RESAMPLES = 2000
"""Bootstrap resamples behind an interval."""

_LEAST_RANKED = 3  # the rank correlation of two points is always 1 or -1
_PAIRS = 1 << 15  # of references, compared at once: those of all resamples may need gigabytes
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
_Parts = tuple[_Samples, _Samples, _Samples]  # by benchmark, by capability, and macro


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
    benchmarks, by_capability, macro = _mean_over_trainings(
        proxies, references, capabilities, tuple(_MEASURES), seed, resamples
    )
    return (
        {name: _agreement(values) for name, values in benchmarks.items()},
        {name: _agreement(values) for name, values in by_capability.items()},
        _agreement(macro["macro"]),
    )


def spearman_differences(
    first: Mapping[str, FloatArray],
    second: Mapping[str, FloatArray],
    references: Mapping[str, FloatArray] | Sequence[Mapping[str, FloatArray]],
    capabilities: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Estimate], dict[str, Estimate], Estimate]:
    """Spearman's correlation of the second proxies with references, less that of the first.

    Both are taken in the same resamples of the references: what makes a sample hard for both is
    no doubt about their difference.

    Args:
        first: Scores (n,) of proxies by benchmark, higher is better.
        second: Scores (n,) of other proxies of the same mixtures.
        references: As for :func:`agreements`.
        capabilities: Benchmarks of each capability.
        seed: Of the resamples.
        resamples: Number of them.

    Returns:
        By benchmark, by capability, and macro.
    """
    one, other = (
        _mean_over_trainings(proxies, references, capabilities, ("spearman",), seed, resamples)
        for proxies in (first, second)
    )
    benchmarks, by_capability, macro = (
        {name: _estimate(b[name]["spearman"] - a[name]["spearman"]) for name in a}
        for a, b in zip(one, other, strict=True)
    )
    return benchmarks, by_capability, macro["macro"]


def _mean_over_trainings(
    proxies: Mapping[str, FloatArray],
    references: Mapping[str, FloatArray] | Sequence[Mapping[str, FloatArray]],
    capabilities: Mapping[str, Sequence[str]],
    measures: Sequence[str],
    seed: int,
    resamples: int,
) -> _Parts:
    """Measures of the references as they are, then in resamples of them: (1 + resamples,)."""
    trainings = [references] if isinstance(references, Mapping) else list(references)
    n = len(next(iter(proxies.values())))
    rows = np.random.default_rng([seed, n]).integers(n, size=(resamples, n))
    picks = np.concatenate([np.arange(n)[None], rows])  # (1 + resamples, n)
    found = [_sampled(proxies, one, capabilities, measures, picks) for one in trainings]
    benchmarks, by_capability, macro = (
        {
            name: {m: np.mean([part[name][m] for part in parts], axis=0) for m in measures}
            for name in parts[0]
        }
        for parts in zip(*found, strict=True)
    )
    return benchmarks, by_capability, macro


def _sampled(
    proxies: Mapping[str, FloatArray],
    references: Mapping[str, FloatArray],
    capabilities: Mapping[str, Sequence[str]],
    measures: Sequence[str],
    picks: NDArray[np.intp],
) -> _Parts:
    """Measures in samples of references, picks (B, n): by benchmark, capability, macro."""

    def measured(p: FloatArray, r: FloatArray) -> dict[str, FloatArray]:
        return {measure: _MEASURES[measure](p[picks], r[picks]) for measure in measures}

    by_benchmark = {name: measured(proxies[name], references[name]) for name in references}
    by_capability = {}
    for capability, names in capabilities.items():
        p = np.mean([proxies[name] for name in names], axis=0)
        r = np.mean([references[name] for name in names], axis=0)
        values = measured(p, r)
        if "recovery" in values:
            each = [by_benchmark[name]["recovery"] for name in names]
            values["recovery"] = np.mean(each, axis=0)
        by_capability[capability] = values
    macro = {
        measure: np.mean([values[measure] for values in by_capability.values()], axis=0)
        if by_capability
        else np.full(len(picks), np.nan)
        for measure in measures
    }
    return by_benchmark, by_capability, {"macro": macro}


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
    step = max(1, _PAIRS // len(left))
    for start in range(0, len(a), step):
        x, y = (
            np.sign(rows[:, left] - rows[:, right])
            for rows in (a[start : start + step], b[start : start + step])
        )
        scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        with np.errstate(invalid="ignore"):
            tau[start : start + step] = (x * y).sum(axis=1) / scale  # 0/0 where one is constant
    return tau


def best_quarter(r: FloatArray) -> NDArray[np.bool_]:
    """Mask (n,) of the references whose score reaches the upper quartile."""
    mask: NDArray[np.bool_] = r >= np.quantile(r, 0.75)
    return mask


def _top_quarter(p: FloatArray, r: FloatArray) -> FloatArray:
    """Spearman's correlation (B,) of paired rows (B, n) within each row's best quarter."""
    best = r >= np.quantile(r, 0.75, axis=1, keepdims=True)  # as best_quarter
    sizes = best.sum(axis=1)  # ties make it larger
    rho = np.empty(len(p))
    for size in np.unique(sizes):
        rows = sizes == size
        x, y = (values[rows][best[rows]].reshape(-1, size) for values in (p, r))
        rho[rows] = spearman_rows(x, y)
    return rho


def _recovery(p: FloatArray, r: FloatArray) -> FloatArray:
    """Ratio of mean scores (B,); scores below 0 are negated measures of which less is better.

    NaN where proxies and references do not have one sign: such a ratio means nothing.
    """
    mean_p, mean_r = p.mean(axis=1), r.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(mean_r > 0, mean_p / mean_r, mean_r / mean_p)
    ratio[~(mean_p * mean_r > 0)] = np.nan
    return np.asarray(ratio, dtype=float)


_MEASURES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "spearman": spearman_rows,
    "top_quarter": _top_quarter,
    "kendall": kendall_rows,
    "recovery": _recovery,
}


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
