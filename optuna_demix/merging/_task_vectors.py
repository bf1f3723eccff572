"""Merging by task vectors ``T_k − B``: task arithmetic, TIES, DARE, Model Breadcrumbs, DELLA.

``B + λ · Σ w_k s_k (T_k − B)``, where s_k restores what sparsification took. Without an election
this is a weighted sum of the rows T_1 … T_K, B, so nothing is ever rounded to a task vector.
"""

from __future__ import annotations

import numpy as np

from optuna_demix.merging._plan import Election, FloatArray, Plan

_NO_WEIGHT = 1e-8  # as in mergekit: smaller sums do not divide


def task_vectors(
    w: FloatArray, scales: FloatArray | None, *, lambda_: float, normalize: bool
) -> Plan:
    """Return the plan of a sum of task vectors.

    Args:
        w: Merge weights, (K,).
        scales: Scale of each task vector, (T, K), or None.
        lambda_: Factor of the merged task vector.
        normalize: Divide by the sum of the weights.
    """
    total = float(w.sum())
    divisor = total if normalize and abs(total) >= _NO_WEIGHT else 1.0
    parts = lambda_ / divisor * (w if scales is None else w * scales)  # (K,) or (T, K)
    base = 1.0 - parts.sum(axis=-1, keepdims=True)
    # Weights on the simplex sum to 1 only to rounding; what is left of the base is that rounding.
    if scales is None and lambda_ == 1.0 and (normalize or _is_one(w)):
        base = np.zeros_like(base)
    return Plan(np.concatenate([parts, base], axis=-1)).simplified()


def elected_task_vectors(
    w: FloatArray, scales: FloatArray | None, *, lambda_: float, normalize: bool
) -> Plan:
    """Return the plan of a sum of those elements whose sign wins the election.

    Args:
        w: Merge weights, (K,).
        scales: Scale of each task vector, (T, K), or None.
        lambda_: Factor of the merged task vector.
        normalize: Divide each element by the sum of the weights that won.
    """
    parts = w if scales is None else w * scales
    election = Election(weights=w, normalize=normalize, scale=lambda_)
    return Plan(parts, election).simplified()


def _is_one(w: FloatArray) -> bool:
    return bool(abs(float(w.sum()) - 1.0) <= 4 * len(w) * np.finfo(np.float64).eps)
