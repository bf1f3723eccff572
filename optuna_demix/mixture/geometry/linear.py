"""Linear programs over ``{w : sum(w) = 1, lower <= w <= upper, rows @ w <= bounds}``."""

from __future__ import annotations

from typing import Any

import numpy as np

from optuna_demix.mixture.geometry.simplex import Array

# The tightest feasibility tolerance that HiGHS accepts.
_TOLERANCE = 1e-10
# Coefficients and variables of the programs that are solved in one call, at most. A call costs
# some milliseconds whatever it solves; beyond, the solver's own time grows faster than their
# number.
_COEFFICIENTS = 200_000
_VARIABLES = 4_096


def maximize(objectives: Array, rows: Array, bounds: Array, lower: Array, upper: Array) -> Array:
    """Return a vertex for each objective that maximizes ``objective @ w``.

    Args:
        objectives: Objectives, (n, K).
        rows: Left-hand sides, (m, K).
        bounds: Right-hand sides, (m,).
        lower: Lower bounds of the weights, (K,).
        upper: Upper bounds of the weights, (K,).

    Returns:
        Vertices, (n, K); NaN where the solver finds none.
    """
    size = _VARIABLES // max(len(lower), 1)
    size = max(1, min(size, _COEFFICIENTS // max(int(np.count_nonzero(rows)), 1)))
    points = np.full(objectives.shape, np.nan)
    for first in range(0, len(objectives), size):
        part = slice(first, first + size)
        found = _maximize_together(objectives[part], rows, bounds, lower, upper)
        if found is None:  # one of them spoils the others
            for i, objective in enumerate(objectives[part], first):
                alone = _solve(-objective, rows, bounds, np.ones((1, len(lower))), lower, upper)
                points[i] = np.nan if alone is None else alone
        else:
            points[part] = found
    return points


def _maximize_together(
    objectives: Array, rows: Array, bounds: Array, lower: Array, upper: Array
) -> Array | None:
    """Solve n programs that share their constraints as one whose blocks they are, (n, K)."""
    from scipy import sparse

    n, k = objectives.shape
    found = _solve(
        -objectives.ravel(),
        sparse.kron(sparse.eye(n), sparse.csr_matrix(rows), format="csr"),  # (n m, n K)
        np.tile(bounds, n),
        sparse.kron(sparse.eye(n), np.ones((1, k)), format="csr"),  # (n, n K)
        np.tile(lower, n),
        np.tile(upper, n),
        presolve=False,  # it costs more than it saves
    )
    return None if found is None else found.reshape(n, k)


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
    # One more variable, the violation, is taken from every row and minimized.
    violation = np.append(np.zeros(len(lower)), 1.0)
    point = _solve(
        violation,
        np.concatenate([rows, -np.ones((len(rows), 1))], axis=1),  # (m, K + 1)
        bounds,
        (1.0 - violation)[None],
        np.append(lower, 0.0),
        np.append(upper, np.inf),
    )
    if point is None:
        raise RuntimeError("the linear program of the mixture's constraints failed")
    point = point[:-1]
    return max(0.0, float((rows @ point - bounds).max())), point


def _solve(
    cost: Array,
    rows: Any,
    bounds: Array,
    sums: Any,
    lower: Array,
    upper: Array,
    *,
    presolve: bool = True,
) -> Array | None:
    """Minimize ``cost @ x`` where ``rows @ x <= bounds`` and ``sums @ x = 1``."""
    from scipy.optimize import linprog

    result = linprog(
        cost,
        A_ub=rows,
        b_ub=bounds,
        A_eq=sums,
        b_eq=np.ones(sums.shape[0]),
        bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
        method="highs",
        options={
            "presolve": presolve,
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
        },
    )
    return np.asarray(result.x, dtype=np.float64) if result.status == 0 else None
