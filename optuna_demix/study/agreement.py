"""Mixtures as both proxies score them, and where the two disagree about which is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from optuna_demix._text_table import ruled_table
from optuna_demix.errors import InputError
from optuna_demix.search._result import without_nan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.engines import Probabilities
    from optuna_demix.search.objective import Scores

_RANDOM = 512  # random mixtures that ranks refer to
_NO_MATTER = 0.01  # of all random mixtures: a difference of less is no reason to warn

Merit: TypeAlias = "Callable[[FloatArray], FloatArray]"
"""The composite (n,) of objective scores (n, m), higher is better."""


@dataclass(frozen=True)
class ProxyScores:
    """One mixture as one kind of proxy scores it.

    Attributes:
        objectives: Score by objective.
        composite: Merit, higher is better.
    """

    objectives: dict[str, float]
    composite: float


@dataclass(frozen=True)
class ProxyComparison:
    """Mixtures as merged proxies and the probability mixture score them.

    Attributes:
        merged: By name of the mixture, what its merged model scores.
        probabilities: What the mixture of the components' token probabilities scores.
        warnings: A line for each pair of mixtures of which the two disagree which is better.
    """

    merged: dict[str, ProxyScores]
    probabilities: dict[str, ProxyScores]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it (numbers that are not finite become ``None``)."""
        plain: dict[str, Any] = without_nan({**asdict(self), "warnings": list(self.warnings)})
        return plain

    def __str__(self) -> str:
        """A table, each score by merged proxies and by probabilities, then the warnings."""
        objectives = list(next(iter(self.merged.values())).objectives)
        header = [""]
        for name in (*objectives, "composite"):
            header += [name, "by prob."]
        rows = []
        for name, merged in self.merged.items():
            other = self.probabilities[name]
            row = [name]
            for objective in objectives:
                row += [f"{one.objectives[objective]:.4f}" for one in (merged, other)]
            rows.append([*row, f"{merged.composite:.3f}", f"{other.composite:.3f}"])
        lines = [ruled_table(header, rows)]
        lines += ["each score first by merged proxies, then by the mixture of token probabilities"]
        return "\n".join([*lines, *(f"warning: {line}" for line in self.warnings)])


def compare_proxies(
    merged: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    objectives: Sequence[str],
    composite: Merit,
    *,
    probability_composite: Merit | None = None,
    noise: float = 0.0,
) -> ProxyComparison:
    """Set the scores of both proxies side by side, and say where they disagree.

    Args:
        merged: Objective scores (n, m) of the merged proxies, higher is better.
        probabilities: Those of the probability mixtures of the same weights.
        names: Names of the mixtures, n of them.
        objectives: Names of the objectives, m of them.
        composite: Merit (n,) of scores (n, m).
        probability_composite: That of the probability mixture's scores, where it is another
            function: ranks are those among random mixtures as the same proxy scores them.
        noise: Standard deviation of one composite. A difference of no more than that, by either
            proxy, is no disagreement.

    Raises:
        InputError: If there is no mixture, or the scores are not (n, m).
    """
    shape = (len(names), len(objectives))
    Y = {"merged": np.asarray(merged, float), "probabilities": np.asarray(probabilities, float)}
    for kind, scores in Y.items():
        if scores.shape != shape or not names:
            raise InputError(
                f"{kind}: the scores are of shape {scores.shape}, but there are {shape[0]} "
                f"mixtures and {shape[1]} objectives; give one row for each mixture"
            )
    by_merged = composite(Y["merged"])
    by_other = (probability_composite or composite)(Y["probabilities"])
    return ProxyComparison(
        _by_name(names, objectives, Y["merged"], by_merged),
        _by_name(names, objectives, Y["probabilities"], by_other),
        tuple(_disagreements(names, by_merged, by_other, noise)),
    )


def _by_name(
    names: Sequence[str], objectives: Sequence[str], scores: FloatArray, merit: FloatArray
) -> dict[str, ProxyScores]:
    return {
        name: ProxyScores(dict(zip(objectives, row, strict=True)), value)
        for name, row, value in zip(names, scores.tolist(), merit.tolist(), strict=True)
    }


def _disagreements(
    names: Sequence[str], merged: FloatArray, probabilities: FloatArray, noise: float
) -> list[str]:
    lines = []
    for pair in combinations(range(len(names)), 2):
        better, worse = sorted(pair, key=lambda i: -merged[i])
        ahead = merged[better] - merged[worse]
        behind = probabilities[worse] - probabilities[better]
        if ahead > noise and behind > noise:
            lines.append(
                f"the merged proxies say that {names[better]} is better than {names[worse]} "
                f"(composite {merged[better]:.3f}, {merged[worse]:.3f}), the probability mixture "
                f"says the opposite ({probabilities[better]:.3f}, {probabilities[worse]:.3f})"
            )
    return lines


def side_by_side(
    scored: Mapping[str, Scores],
    layout: Sequence[Mapping[str, float]],
    objectives: Sequence[str],
    space: MixtureSpace,
    mixture: Probabilities,
    how: str | Sequence[float],
) -> ProxyComparison | None:
    """Compare mixtures that both proxies have scored.

    Args:
        scored: Their scores by name.
        layout: For each objective its benchmarks and their weights, m of them.
        objectives: Names of the objectives.
        space: The mixtures; ranks are those among random ones.
        mixture: The probability mixture.
        how: How objectives make one merit: ``rank``, ``mean`` or weights.

    Returns:
        The comparison, over the objectives that both proxies score in full; ``None`` without any.
    """
    from optuna_demix.search.proposals.acquisition import Composite

    known = mixture.benchmarks
    kept = [j for j, part in enumerate(layout) if set(part) <= set(known)]
    if not kept or not all(scores.merged for scores in scored.values()):
        return None
    M = np.array([[layout[j].get(name, 0.0) for name in known] for j in kept])  # (m, B)

    def objectives_of(kind: str) -> FloatArray:
        rows = [[getattr(scores, kind)[name] for name in known] for scores in scored.values()]
        found: FloatArray = np.array(rows) @ M.T
        return found

    merged, mixed = objectives_of("merged"), objectives_of("probabilities")
    random = space.sample(_RANDOM, np.random.default_rng(0))
    reference: FloatArray = mixture.scores(random) @ M.T
    weights = how if isinstance(how, str) else [how[j] for j in kept]
    # Merged scores lie elsewhere as a whole: ranks are taken where the mixtures lie.
    shift = np.nanmean(merged - mixed, axis=0)
    return compare_proxies(
        merged,
        mixed,
        list(scored),
        [objectives[j] for j in kept],
        Composite(weights, reference + shift),
        probability_composite=Composite(weights, reference),
        noise=_NO_MATTER if how == "rank" else 0.0,
    )
