"""Merging by task vectors ``T_k − B``: task arithmetic, TIES, DARE, Model Breadcrumbs, DELLA.

``B + λ · Σ w_k s_k (T_k − B)``, where s_k restores what sparsification took.
"""

from __future__ import annotations

import numpy as np

from optuna_demix._typing import FloatArray
from optuna_demix.merging.methods.plan import Election, MergePlan

_MIN_TOTAL = 1e-8  # as in mergekit: smaller sums do not divide


def task_vectors(
    w: FloatArray, scales: FloatArray | None, *, lambda_: float, normalize: bool
) -> MergePlan:
    """Return the plan of a sum of task vectors.

    Args:
        w: Merge weights, (K,).
        scales: Scale of each task vector, (T, K), or None.
        lambda_: Factor of the merged task vector.
        normalize: Divide by the sum of the weights.
    """
    total = float(w.sum())
    divisor = total if normalize and abs(total) >= _MIN_TOTAL else 1.0
    parts = lambda_ / divisor * (w if scales is None else w * scales)  # (K,) or (T, K)
    if scales is None and _is_one(parts):
        # The base cancels out: the plain average, which returns a single component bit for bit.
        return MergePlan(np.append(parts, 0.0))
    return MergePlan(parts, around_base=True).simplified()


def elected_task_vectors(
    w: FloatArray, scales: FloatArray | None, *, lambda_: float, normalize: bool
) -> MergePlan:
    """Return the plan of a sum of those elements whose sign wins the election.

    Args:
        w: Merge weights, (K,).
        scales: Scale of each task vector, (T, K), or None.
        lambda_: Factor of the merged task vector.
        normalize: Divide each element by the sum of the weights that won.
    """
    parts = w if scales is None else w * scales
    election = Election(weights=w, normalize=normalize, scale=lambda_)
    return MergePlan(parts, around_base=True, election=election).simplified()


def _is_one(parts: FloatArray) -> bool:
    return bool(abs(float(parts.sum()) - 1.0) <= 4 * len(parts) * np.finfo(np.float64).eps)
