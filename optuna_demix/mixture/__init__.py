"""The constrained simplex: which mixtures are allowed, and how to draw, move and project them.

Only numpy is imported here; scipy is loaded by the first call that solves a linear programme.
"""

from __future__ import annotations

from optuna_demix.mixture.constraints import Group
from optuna_demix.mixture.space import MixtureSpace

__all__ = ["Group", "MixtureSpace"]
