"""Merge weights that come near to given data shares."""

from __future__ import annotations

import numpy as np

from optuna_demix.mixture.geometry.simplex import Array


def nearest_weights(
    shares: Array,
    composition: Array,
) -> Array:
    """Merge weights (K,) on the simplex whose data shares come nearest to those asked for.

    Args:
        shares: Data shares (D,).
        composition: What each component was trained on, (K, D).
    """
    from scipy.optimize import nnls

    # A heavy last row makes the weights sum to 1.
    heavy = 1e3
    system = np.vstack([composition.T, heavy * np.ones(len(composition))])  # (D + 1, K)
    weights = nnls(system, np.append(shares, heavy))[0]
    return np.asarray(weights / weights.sum(), dtype=float)
