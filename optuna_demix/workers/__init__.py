"""Workers: processes that evaluate the trials of a shared study.

``run_worker`` and ``run_workers`` do what a ``study.yaml`` says; ``work`` is the loop alone, for
any objective. A worker keeps nothing that is not in the storage: if it is killed, another one goes
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix._stop import StopRequest
    from optuna_demix.workers.fleet import run_workers
    from optuna_demix.workers.loop import WorkerReport, work
    from optuna_demix.workers.run import run_worker

__all__ = [
    "StopRequest",
    "WorkerReport",
    "run_worker",
    "run_workers",
    "work",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "StopRequest": "optuna_demix._stop",
        "WorkerReport": "optuna_demix.workers.loop",
        "run_worker": "optuna_demix.workers.run",
        "run_workers": "optuna_demix.workers.fleet",
        "work": "optuna_demix.workers.loop",
    },
)
