"""Workers: processes that take trials from a shared study, and the signals they obey.

A worker keeps nothing that is not in the storage: kill it, start another, and the search goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.workers.fleet import run_workers
    from optuna_demix.workers.loop import WorkerReport, work
    from optuna_demix.workers.run import run_worker

__all__ = [
    "WorkerReport",
    "run_worker",
    "run_workers",
    "work",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "WorkerReport": "optuna_demix.workers.loop",
        "run_worker": "optuna_demix.workers.run",
        "run_workers": "optuna_demix.workers.fleet",
        "work": "optuna_demix.workers.loop",
    },
)
