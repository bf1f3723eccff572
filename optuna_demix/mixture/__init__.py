"""The mixtures a search may try: merge weights on the simplex within bounds, caps and groups.

A `MixtureSpace` draws, moves and projects mixtures, suggests them to Optuna's trials and reads
them back. Importing it loads numpy alone; the first linear program loads scipy.
"""

from __future__ import annotations

from optuna_demix.mixture.constraints import Group
from optuna_demix.mixture.space import MixtureSpace

__all__ = ["Group", "MixtureSpace"]
