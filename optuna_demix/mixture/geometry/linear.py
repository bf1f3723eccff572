"""Linear programmes over ``{w : sum(w) = 1, lower <= w <= upper, rows @ w <= bounds}``."""

from __future__ import annotations

import numpy as np

from optuna_demix.mixture.geometry.simplex import Array

# The tightest feasibility tolerance that HiGHS accepts.
_TOLERANCE = 1e-10


def maximise(
    objective: Array, rows: Array, bounds: Array, lower: Array, upper: Array
) -> Array | None:
    """Return a vertex which maximises ``objective @ w``, (K,), or None when there is none.

    Args:
        objective: Objective, (K,).
        rows: Left-hand sides, (m, K).
        bounds: Right-hand sides, (m,).
        lower: Lower bounds of the weights, (K,).
        upper: Upper bounds of the weights, (K,).
    """
    return _solve(-objective, rows, bounds, np.ones(len(lower)), lower, upper)


def least_violation(rows: Array, bounds: Array, lower: Array, upper: Array) -> tuple[float, Array]:
    """Find the point of the box-bounded simplex which breaks the rows least.

    Args:
        rows: Left-hand sides, (m, K).
        bounds: Right-hand sides, (m,).
        lower: Lower bounds of the weights, (K,); with ``upper`` they leave the simplex non-empty.
        upper: Upper bounds of the weights, (K,).

    Returns:
        ``max(rows @ w - bounds)`` at that point, at least 0, and the point, (K,).
    """
    # One more variable, the violation, is taken from every row and minimised.
    violation = np.append(np.zeros(len(lower)), 1.0)
    point = _solve(
        violation,
        np.concatenate([rows, -np.ones((len(rows), 1))], axis=1),  # (m, K + 1)
        bounds,
        1.0 - violation,
        np.append(lower, 0.0),
        np.append(upper, np.inf),
    )
    if point is None:
        raise RuntimeError("the linear programme of the mixture's constraints failed")
    point = point[:-1]
    return max(0.0, float((rows @ point - bounds).max())), point


def _solve(
    cost: Array, rows: Array, bounds: Array, summed: Array, lower: Array, upper: Array
) -> Array | None:
    """Minimise ``cost @ x`` where ``rows @ x <= bounds`` and ``summed @ x = 1``."""
    from scipy.optimize import linprog

    result = linprog(
        cost,
        A_ub=rows,
        b_ub=bounds,
        A_eq=summed[None, :],
        b_eq=np.ones(1),
        bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
        method="highs",
        options={
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
        },
    )
    return np.asarray(result.x, dtype=np.float64) if result.status == 0 else None
