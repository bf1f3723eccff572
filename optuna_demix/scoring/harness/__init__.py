"""Everything that knows lm-evaluation-harness: its tasks, its requests, its model interface.

Written against lm-eval 0.4.13; no module outside this package imports it. A catalog finds tasks by
name and loads them, task specs say what their configurations promise, and a prepared model is
lm-eval's own ``HFLM`` over a live model, whose requests are tokenized and laid out once.

Whatever depends on the weights is computed anew each time: lm-eval's caches of responses and of
requests are not used. Several processes may load the same tasks at once: ``datasets`` prepares a
data set under a file lock of its own, in a directory that it renames when it is complete, and
moves the temporary file of a ``map`` into place. Nothing else is written.

lm-eval is imported when one of the names that need it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.scoring.harness.catalog import Catalog
    from optuna_demix.scoring.harness.forward_plan import ForwardPlan
    from optuna_demix.scoring.harness.model import PreparedModel
    from optuna_demix.scoring.harness.task_specs import Leaf, TaskSpec

__all__ = ["Catalog", "ForwardPlan", "Leaf", "PreparedModel", "TaskSpec"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Catalog": "optuna_demix.scoring.harness.catalog",
        "ForwardPlan": "optuna_demix.scoring.harness.forward_plan",
        "Leaf": "optuna_demix.scoring.harness.task_specs",
        "PreparedModel": "optuna_demix.scoring.harness.model",
        "TaskSpec": "optuna_demix.scoring.harness.task_specs",
    },
)
