"""The published schedule (DeMix, section 3.3 and the released code)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.proposals.acquisition import (
    Composite,
)
from optuna_demix.search.proposals.fit import Fit

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray

PAPER_SIZES = (64, 32, 16)  # trials of each iteration (paper, section 4.1; CLIMB's schedule)
PAPER_POOL = 200_000  # candidates that each iteration ranks
PAPER_TOP = 1280  # best candidates an iteration draws its trials from
PAPER_AVERAGE = 128  # best candidates whose mean is the final mixture (paper, appendix B)


def paper_best(fit: Fit, composite: str | Sequence[float], pool_size: int, n: int) -> FloatArray:
    """The n best rows (n, d) of a large pool, as the published schedule ranks them."""
    pool = fit.joint.sample(pool_size, np.random.default_rng(fit.seed))
    scores = fit.predict(pool).mean
    merit = Composite(composite, scores)(scores)
    return pool[np.argsort(-merit, kind="stable")[:n]]


def iteration_of(number: int, sizes: Sequence[int]) -> tuple[int, int]:
    """First trial number and size of the iteration that a trial belongs to."""
    start = 0
    for size in sizes:
        if number < start + size:
            return start, size
        start += size
    return start + (number - start) // sizes[-1] * sizes[-1], sizes[-1]
