"""The published schedule (DeMix, section 3.3 and the released code)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.proposals.fit import Fit

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.options import SearchOptions
    from optuna_demix.search.proposals.state import SpaceState
    from optuna_demix.search.proposals.streams import Streams
    from optuna_demix.search.rows.joint_space import JointSpace

SIZES = (64, 32, 16)  # trials of each iteration (paper, section 4.1; CLIMB's schedule)
POOL = 200_000  # candidates that each iteration ranks
TOP = 1280  # best candidates an iteration draws its trials from
AVERAGE = 128  # best candidates whose mean is the final mixture (paper, appendix B)


class DemixProposer:
    """Proposals in iterations: each draws at random among the best of a large ranked pool.

    Args:
        options: How the study is searched.
        streams: Its randomness.
        sizes: Trials of each iteration; the last one repeats.
        pool_size: Candidates ranked in each iteration.

    Raises:
        ConfigError: If a size is not positive.
    """

    def __init__(
        self, options: SearchOptions, streams: Streams, *, sizes: Sequence[int], pool_size: int
    ) -> None:
        if not sizes or min(sizes) < 1 or pool_size < 1:
            raise ConfigError("schedule_sizes and pool_size must be positive")
        self._options = options
        self._streams = streams
        self._sizes = tuple(int(size) for size in sizes)
        self._pool_size = int(pool_size)

    def propose(
        self, number: int, state: SpaceState, joint: JointSpace, rng: np.random.Generator
    ) -> FloatArray:
        """Next row (d,).

        Args:
            number: The trial's number.
            state: What is known of the study.
            joint: Its parameters, those that are fixed for this trial pinned.
            rng: The trial's own randomness.
        """
        start, size = iteration_of(number, self._sizes)
        trials = state.history.arrays().before(start)
        if start == 0 or len(trials.X) < 1:
            return joint.sample_one(rng)
        key = (start, len(trials.X))
        if key not in state.iteration:
            seed = self._streams.seed_of(start, "demix")
            options = self._options
            fit = Fit(options.kind, state.history.joint, state.history.targets, trials, seed)
            best = best_of_pool(fit, options.scalar_composite, self._pool_size, max(TOP, size))
            order = np.random.default_rng([seed, 1]).permutation(len(best))[:size]
            state.iteration = {key: best[order]}
        chosen = state.iteration[key]
        if number - start < len(chosen):
            return joint.project(chosen[number - start])
        return joint.sample_one(rng)


def best_of_pool(fit: Fit, composite: str | Sequence[float], pool_size: int, n: int) -> FloatArray:
    """The n best rows (n, d) of a large pool, as the published schedule ranks them.

    It knows neither failures nor constraints; where there are any, they are counted in.
    """
    pool = fit.predict(fit.joint.sample(pool_size, np.random.default_rng(fit.seed)))
    merit = fit.rank(pool, Composite(composite, pool.mean))
    return pool.X[np.argsort(-merit, kind="stable")[:n]]


def iteration_of(number: int, sizes: Sequence[int]) -> tuple[int, int]:
    """First trial number and size of the iteration that a trial belongs to."""
    start = 0
    for size in sizes:
        if number < start + size:
            return start, size
        start += size
    return start + (number - start) // sizes[-1] * sizes[-1], sizes[-1]
