"""The progress of a study, as a bar that all its workers share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna_demix.errors import StorageLostError

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import TrialState

_REFRESH_S = 2.0
"""Seconds between two reads for the bar, which is not worth more of the storage's time."""


@contextmanager
def progress_bar(
    study: Study, n_trials: int | None, *, shown: bool
) -> Iterator[Callable[..., None]]:
    """A bar of the study's finished trials, of all workers; yields a function to refresh it.

    What the function is given is shown beside them: how far the worker's own trial has come.
    """
    from optuna.trial import TrialState
    from tqdm import tqdm

    def count(state: TrialState) -> int:
        return study._storage.get_n_trials(study._study_id, state)

    with tqdm(
        total=n_trials,
        initial=count(TrialState.COMPLETE) + count(TrialState.PRUNED),
        desc=study.study_name,
        unit="trial",
        disable=not shown,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:
        drawn_at = -float("inf")

        def refresh(within: str = "", *, now: bool = False) -> None:
            nonlocal drawn_at
            if not shown or (not now and time.monotonic() - drawn_at < _REFRESH_S):
                return
            drawn_at = time.monotonic()
            try:
                complete = count(TrialState.COMPLETE)
                pruned, failed = count(TrialState.PRUNED), count(TrialState.FAIL)
            except StorageLostError:
                return
            bar.update(complete + pruned - bar.n)
            others = {"pruned": pruned, "failed": failed}
            parts = [within] * bool(within) + [f"{name}={n}" for name, n in others.items() if n]
            bar.set_postfix_str(", ".join(parts), refresh=bool(within))

        yield refresh
        refresh(now=True)
