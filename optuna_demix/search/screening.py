"""Which trials write the texts of screened benchmarks: those that are still in the race."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.rows.screened import LEAST, predicted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_demix.search.rows.targets import Targets

FIRST = 8
"""Trials that write texts in any case: what cheap scores mean has to be seen first."""

WINDOW = 16
"""Trials before its own that a trial has to keep up with."""


def is_in_the_race(
    trial: FrozenTrial, others: Sequence[FrozenTrial], targets: Targets, *, keep: float
) -> bool:
    """Whether a trial that has its cheap scores is to write texts.

    It is compared with the last trials before it that have cheap scores, finished or not, and
    nothing else counts: workers that read the same trials decide alike, in whatever order they
    ask. A search gets better, so that nearly each trial would be one of the best so far: of those
    after the first, no larger share than asked for writes texts. The scores of screened
    benchmarks are estimated for all of them, those that wrote texts too, since
    those had the luck to be judged by noisy scores. Several objectives count as the mean of
    percentile ranks.

    Args:
        trial: The trial, with the scores and cheap scores that it has.
        others: All trials of its study.
        targets: How objectives follow from benchmarks.
        keep: Best share of these trials that writes texts.
    """
    before = [
        other
        for other in others
        if other.number < trial.number
        and other.state.name in ("COMPLETE", "PRUNED", "RUNNING")
        and targets.read_cheap(other) is not None
    ]
    if len(before) < FIRST:
        return True
    those = [*before, trial]
    cheap = np.array([targets.read_cheap(each) for each in those], dtype=float)  # (n, b)
    unknown = np.full(cheap.shape[1], np.nan)  # where every benchmark is screened
    Y = np.stack([unknown if (y := targets.read(each)) is None else y for each in those])
    is_screened = np.isfinite(cheap[-1])
    written = np.array([each.state.name == "COMPLETE" for each in those])
    if int(written.sum()) < LEAST or np.isnan(cheap[:, is_screened]).any():
        return True
    for j in np.flatnonzero(is_screened):
        Y[:, j], _ = predicted(cheap[:, j], np.where(written, Y[:, j], np.nan))
    values = Y @ targets.mixing  # (n, m)
    merit = Composite("rank", values)(values)
    n_later = len(before) - FIRST + 1
    if int(written[FIRST:].sum()) >= keep * n_later:
        return False
    rivals = merit[-1 - WINDOW : -1]
    return int((rivals > merit[-1]).sum()) < keep * (len(rivals) + 1)
