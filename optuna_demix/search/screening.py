"""Which trials write the texts of screened benchmarks: those that are still in the race."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.rows.screened import LEAST, predicted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.targets import Targets

FIRST = 8
"""Trials that write texts in any case: what cheap scores mean has to be seen first."""

WINDOW = 16
"""Trials before its own that a trial has to keep up with. A search gets better: among all trials
nearly each would be one of the best, and three of four wrote texts where a quarter was to."""


def is_in_the_race(
    trial: FrozenTrial, others: Sequence[FrozenTrial], targets: Targets, *, keep: float
) -> bool:
    """Whether a trial that has its cheap scores is to write texts.

    It is compared with the last trials before it that have cheap scores, finished or not, and
    nothing else counts: workers that read the same trials decide alike, in whatever order they ask. The
    scores of screened benchmarks are estimated for all of them, those that wrote texts too, since
    those had the luck to be judged by noisy scores. Several objectives count as the mean of
    percentile ranks.

    Args:
        trial: The trial, with the scores and cheap scores that it has.
        others: All trials of its study.
        targets: How objectives follow from benchmarks.
        keep: Best share of these trials that writes texts.
    """
    before = [
        (scores, cheap, other.state.name == "COMPLETE")
        for other in others
        if other.number < trial.number
        and other.state.name in ("COMPLETE", "PRUNED", "RUNNING")
        and (scores := targets.read(other)) is not None
        and (cheap := targets.read_cheap(other)) is not None
    ]
    own_cheap = targets.read_cheap(trial)
    own_scores = targets.read(trial)
    if len(before) < FIRST or own_cheap is None:
        return True
    if own_scores is None:  # every benchmark is screened
        own_scores = np.full(len(own_cheap), np.nan)
    cheap = np.stack([*(cheap for _, cheap, _ in before), own_cheap])  # (n, b)
    Y = np.stack([*(scores for scores, _, _ in before), own_scores])
    is_screened = np.isfinite(own_cheap)
    written = np.array([done for _, _, done in before] + [False])
    if int(written.sum()) < LEAST or np.isnan(cheap[:, is_screened]).any():
        return True
    for j in np.flatnonzero(is_screened):
        Y[:, j], _ = predicted(cheap[:, j], np.where(written, Y[:, j], np.nan))
    merit = _merit(Y @ targets.mixing)
    rivals = merit[-1 - WINDOW : -1]
    return int((rivals > merit[-1]).sum()) < keep * (len(rivals) + 1)


def _merit(values: FloatArray) -> FloatArray:
    """Merit (n,) of objective values (n, m)."""
    return Composite("rank", values)(values)
