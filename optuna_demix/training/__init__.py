"""Trains the models of a study: the base, its components, and references at known mixtures.

A model is determined by its *recipe*: what it starts from, its text, data shares, budget and seed.
The recipe is kept beside the weights, so that a finished model is skipped, a changed one is
refused, and an interrupted one is resumed from its last checkpoint. On a CPU with the same number
of threads, the same recipe gives the same weights, bit by bit, interrupted or not.
"""

from __future__ import annotations

from optuna_demix.training._parallel import train_parallel
from optuna_demix.training._record import RECORD_FILE
from optuna_demix.training._results import TrainedModel, TrainingInterrupted
from optuna_demix.training._study import train_study

__all__ = ["RECORD_FILE", "TrainedModel", "TrainingInterrupted", "train_parallel", "train_study"]
