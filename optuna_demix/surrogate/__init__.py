"""Regression from mixtures to benchmark scores, with uncertainty and self-validation.

Arrays only: no study, no model. LightGBM and scipy are imported when a surrogate is fitted.
"""

from __future__ import annotations

from optuna_demix.surrogate._kinds import KINDS
from optuna_demix.surrogate._surrogate import Surrogate
from optuna_demix.surrogate._validation import Validation

__all__ = ["KINDS", "Surrogate", "Validation"]
