"""What a study will cost, before anything of it is run: tokens, FLOPs, memory, GPU-hours.

`shape`, `gpus`, `rates`, `runs`, `trials` and `result` are arithmetic in plain numbers; `reading`
finds the numbers of a study, and `estimate` puts them together. Names are imported when they are
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix._lazy import lazy_names

if TYPE_CHECKING:
    from optuna_demix.bill.estimate import estimate_bill
    from optuna_demix.bill.gpus import GPUS, Gpu, find_gpu
    from optuna_demix.bill.rates import Assumptions, Machine, Precision
    from optuna_demix.bill.result import Bill, Memory
    from optuna_demix.bill.runs import TrainingRun
    from optuna_demix.bill.shape import ModelShape
    from optuna_demix.bill.trials import TrialCost

__all__ = [
    "GPUS",
    "Assumptions",
    "Bill",
    "Gpu",
    "Machine",
    "Memory",
    "ModelShape",
    "Precision",
    "TrainingRun",
    "TrialCost",
    "estimate_bill",
    "find_gpu",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GPUS": "optuna_demix.bill.gpus",
        "Assumptions": "optuna_demix.bill.rates",
        "Bill": "optuna_demix.bill.result",
        "Gpu": "optuna_demix.bill.gpus",
        "Machine": "optuna_demix.bill.rates",
        "Memory": "optuna_demix.bill.result",
        "ModelShape": "optuna_demix.bill.shape",
        "Precision": "optuna_demix.bill.rates",
        "TrainingRun": "optuna_demix.bill.runs",
        "TrialCost": "optuna_demix.bill.trials",
        "estimate_bill": "optuna_demix.bill.estimate",
        "find_gpu": "optuna_demix.bill.gpus",
    },
)
