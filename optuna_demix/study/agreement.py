"""Mixtures as both proxies score them, and where the two disagree about which is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
