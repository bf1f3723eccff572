"""Regression from mixtures to benchmark scores, with uncertainty and held-out accuracy.

It works on arrays and follows scikit-learn's conventions; it knows no study and no model.
LightGBM and scipy are imported when a surrogate is fitted.
"""

from __future__ import annotations

from optuna_demix.surrogate._kinds import KINDS, check_kind
from optuna_demix.surrogate._surrogate import Surrogate
from optuna_demix.surrogate._validation import Validation

__all__ = ["KINDS", "Surrogate", "Validation", "check_kind"]
