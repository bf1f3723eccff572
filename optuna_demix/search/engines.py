"""What an objective needs of models, scorers and probability mixtures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_demix.scoring import BlockScores, CheapScores


class Model(Protocol):
    """What an objective needs of :class:`~optuna_demix.merging.LiveModel`."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the components, in the order of the merge weights."""

    def merge(self, w: NDArray[np.float64]) -> None:
        """Make the model the proxy of merge weights (K,)."""


class Scorer(Protocol):
    """What an objective needs of :class:`~optuna_demix.scoring.HarnessScorer`."""

    def score(self) -> dict[str, float]:
        """Score of each benchmark for the model as it is, higher is better."""


@runtime_checkable
class SamplingScorer(Protocol):
    """A scorer of texts that may be sampled."""

    def seed_of(self, number: int) -> int | None:
        """The seed of a trial's texts, or ``None`` where none is sampled."""

    def score(self, *, seed: int | None = None) -> dict[str, float]:
        """Score of each benchmark with texts that are sampled from a seed."""

    def race(self, *, seed: int | None = None) -> Iterator[BlockScores]:
        """The same block by block."""


class RacingScorer(Scorer, Protocol):
    """A scorer that can stop early."""

    def race(self) -> Iterator[BlockScores]:
        """Score the model as it is block by block."""


class ScreeningScorer(Scorer, Protocol):
    """A scorer that can leave out the texts of screened benchmarks."""

    def score_cheaply(self, *, seed: int | None = None) -> CheapScores:
        """Score the model as it is on everything else; texts will be sampled from a seed."""

    def score_screened(self) -> dict[str, float]:
        """Score the same model on these texts as well: all scores."""


class Probabilities(Protocol):
    """What an objective needs of a probability mixture."""

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks that it scores, B of them."""

    def scores(self, weights: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Scores (n, B) of merge weights (n, K), in the order of the space."""
