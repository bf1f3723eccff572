"""Scores of a live model on lm-eval benchmarks, prepared once and paid for in forward passes only.

The weights of the model change in place between two calls of :meth:`HarnessScorer.score`; tasks,
requests, few-shot examples, token ids and batches do not, so they are made once. The numbers are
those of ``lm_eval.simple_evaluate`` on the same weights, to the last bit.

Importing this package imports neither lm-eval nor torch: both wait for the first
:class:`HarnessScorer` or :func:`check_tasks`.
"""

from __future__ import annotations

from optuna_demix.scoring.benchmark import Benchmark
from optuna_demix.scoring.block_scores import BlockScores
from optuna_demix.scoring.checks import check_tasks, undirected
from optuna_demix.scoring.scorer import HarnessScorer
from optuna_demix.scoring.screening import CheapScores, Screening
from optuna_demix.scoring.settings import TaskSettings
from optuna_demix.scoring.vllm_extra import VllmSettings

__all__ = [
    "Benchmark",
    "BlockScores",
    "CheapScores",
    "HarnessScorer",
    "Screening",
    "TaskSettings",
    "VllmSettings",
    "check_tasks",
    "undirected",
]
