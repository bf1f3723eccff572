"""The mixtures a search may try: merge weights on the simplex within bounds, caps and groups.

A `MixtureSpace` draws, moves and projects mixtures, suggests them to Optuna's trials and reads
them back. Importing it loads numpy alone; the first linear program loads scipy.
"""

from __future__ import annotations

from optuna_demix.mixture.hierarchy import Topic
from optuna_demix.mixture.phases import Phase
from optuna_demix.mixture.space import MixtureSpace
from optuna_demix.mixture.sums import Group, LinearConstraint

__all__ = ["Group", "LinearConstraint", "MixtureSpace", "Phase", "Topic"]
