"""Train the models of a study: the base, a component a dataset, references at known mixtures.

A model is wholly determined by its *recipe*: what it starts from, its text, data shares, budget
and seed. The recipe is kept beside the weights, so that a finished model is skipped, a changed one
is refused, and a half trained one goes on from its last checkpoint. On one CPU thread count the
same recipe gives the same weights, bit by bit, interrupted or not.
"""

from __future__ import annotations

from optuna_demix.training._record import RECORD_FILE
from optuna_demix.training._results import TrainedModel, TrainingInterrupted
from optuna_demix.training._study import train_study

__all__ = ["RECORD_FILE", "TrainedModel", "TrainingInterrupted", "train_study"]
