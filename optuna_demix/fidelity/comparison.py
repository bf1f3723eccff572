"""Merged proxies beside probability mixtures: which of them ranks as trained models do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from optuna_demix.fidelity.agreement import Estimate, spearman_differences

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.fidelity.agreement import Agreement

MERGED = "merged"
"""Proxy: the model with the merged weights."""

PROBABILITIES = "probabilities"
"""Proxy: the mixture of the components' token probabilities."""

BOTH = "both"
"""Proxy: the mean of the two, see :func:`mean_of`."""


@dataclass(frozen=True)
class ProxyAgreement:
    """How one kind of proxy agrees with references.

    Attributes:
        benchmarks: By benchmark that it can score.
        capabilities: By capability of which it can score all benchmarks.
        macro: Means over these capabilities.
    """

    benchmarks: dict[str, Agreement]
    capabilities: dict[str, Agreement]
    macro: Agreement


@dataclass(frozen=True)
class Preference:
    """Which proxy to trust on one benchmark, one capability, or on the whole.

    Attributes:
        merged: Spearman's correlation of merged proxies with the references; None where it is
            undefined.
        probabilities: That of the probability mixture; None also where it has no score.
        difference: The second less the first, with the interval over the same resamples of the
            references.
        trust: The better one; ``"either"`` where the interval includes 0 or is undefined.
    """

    merged: float | None
    probabilities: float | None
    difference: Estimate
    trust: Literal["merged", "probabilities", "either"]


@dataclass(frozen=True)
class Comparison:
    """Which proxy to trust.

    Attributes:
        benchmarks: By benchmark; merged where the probability mixture has no score.
        capabilities: By capability, likewise.
        macro: Over the capabilities that both can score.
    """

    benchmarks: dict[str, Preference]
    capabilities: dict[str, Preference]
    macro: Preference


def compare(
    proxies: Mapping[str, Mapping[str, FloatArray]],
    found: Mapping[str, ProxyAgreement],
    references: Mapping[str, FloatArray],
    *,
    capabilities: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> Comparison:
    """Say which proxy to trust.

    Args:
        proxies: Scores (n,) by benchmark of merged proxies and of probability mixtures.
        found: How each of them agrees.
        references: Scores (n,) of the references by benchmark.
        capabilities: Benchmarks of each capability that both can score.
        seed: Of the resamples.
    """
    merged, mixed = found[MERGED], found[PROBABILITIES]
    shared = {name: references[name] for name in proxies[PROBABILITIES]}
    benchmarks, by_capability, macro = spearman_differences(
        proxies[MERGED], proxies[PROBABILITIES], shared, capabilities, seed=seed
    )
    whole = _merged_only(merged.macro.spearman.value)
    if capabilities:
        parts = [merged.capabilities[name].spearman.value for name in capabilities]
        known = [value for value in parts if value is not None]
        of_shared = float(np.mean(known)) if len(known) == len(parts) else None
        whole = _preference(of_shared, mixed.macro.spearman.value, macro)
    return Comparison(
        _preferences(merged.benchmarks, mixed.benchmarks, benchmarks),
        _preferences(merged.capabilities, mixed.capabilities, by_capability),
        whole,
    )


def mean_of(
    first: Mapping[str, FloatArray], second: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """The mean of two proxies' scores in standard deviations of each.

    It has the units of the first proxy, so that benchmarks keep their weights in a capability.

    Args:
        first: Scores (n,) by benchmark.
        second: Scores (n,) by benchmark, of some of them.
    """
    return {
        name: (first[name] + first[name].mean() + first[name].std() * _standardized(scores)) / 2
        for name, scores in second.items()
    }


def _standardized(values: FloatArray) -> FloatArray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _preferences(
    merged: Mapping[str, Agreement],
    mixed: Mapping[str, Agreement],
    differences: Mapping[str, Estimate],
) -> dict[str, Preference]:
    found = {}
    for name, agreement in merged.items():
        rho = agreement.spearman.value
        if name in mixed:
            other = mixed[name].spearman.value
            found[name] = _preference(rho, other, differences[name])
        else:
            found[name] = _merged_only(rho)
    return found


def _merged_only(merged: float | None) -> Preference:
    return Preference(merged, None, Estimate(None), "merged")


def _preference(
    merged: float | None, probabilities: float | None, difference: Estimate
) -> Preference:
    trust: Literal["merged", "probabilities", "either"] = "either"
    if difference.low is not None and difference.low > 0:
        trust = "probabilities"
    elif difference.high is not None and difference.high < 0:
        trust = "merged"
    return Preference(merged, probabilities, difference, trust)
