"""Named constraints: their algebra, and the search for those that leave no mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_demix.errors import ConstraintError
from optuna_demix.mixture.geometry import linear as _linear
from optuna_demix.mixture.geometry.polytope import Polytope
from optuna_demix.mixture.geometry.simplex import Array

# Bounds may contradict each other by this much and still count as touching: rounding of sums.
_TOUCHING = 1e-12
# Rows may be broken by this much by the best mixture: the linear solver's own tolerance.
_BROKEN = 1e-10
# Weights nearer to each other than this are one: the error of attainable ranges.
_NOTHING = 1e-9
# Coefficients nearer to each other than this are one.
_SAME = 1e-12


@dataclass(frozen=True, eq=False)
class Constraint:
    """``row @ w <= bound``, and how to tell a user about it.

    Attributes:
        row: Left-hand side, (K,).
        bound: Right-hand side.
        text: The constraint in words, with its numbers.
        unit: What the left-hand side is multiplied by to be what the user bounded: -1 for a lower
            bound, one over a phase's share of the search for its weights.
        offset: What is then added: what fixed phases use.
    """

    row: Array
    bound: float
    text: str
    unit: float = 1.0
    offset: float = 0.0

    def told(self, value: float) -> float:
        """What the left-hand side is in the terms of the user's bound."""
        return self.unit * value + self.offset


@dataclass(frozen=True, eq=False)
class _Normal:
    """Constraints sorted into bounds of single weights and proper rows.

    Attributes:
        lower: Tightest lower bounds, (K,).
        upper: Tightest upper bounds, (K,).
        lower_from: The constraint behind each lower bound; None for the simplex' own 0.
        upper_from: The constraint behind each upper bound; None for the simplex' own 1.
        rows: The constraints which bind several weights together.
    """

    lower: Array
    upper: Array
    lower_from: list[Constraint | None]
    upper_from: list[Constraint | None]
    rows: list[Constraint]

    def matrix(self) -> tuple[Array, Array]:
        """Left-hand sides, (m, K), and right-hand sides, (m,), of the rows."""
        k = len(self.lower)
        matrix = np.array([c.row for c in self.rows], dtype=np.float64).reshape(-1, k)
        return matrix, np.array([c.bound for c in self.rows], dtype=np.float64)


def polytope_of(constraints: Sequence[Constraint], k: int) -> Polytope:
    """Build the polytope that the constraints leave of the simplex.

    Args:
        constraints: Named constraints.
        k: Number of weights.

    Raises:
        ConstraintError: If nothing is left. The message names a minimal set of constraints that
            exclude each other: without any one of them, the others can be satisfied.
    """
    normal = _normalize(constraints, k)
    culprits = _clash_of_bounds(normal)
    if not culprits and _rows_clash(normal):
        culprits = _minimal_clash(constraints, k)
    if culprits:
        raise ConstraintError(_complaint(culprits))
    return Polytope(*_uncrossed(normal), *normal.matrix())


def check_minimum(least: Array, components: Sequence[str], most: Array) -> None:
    """Refuse limits that leave a component with less than the minimum of those that take part.

    It could only have weight 0, which is for the user to say.

    Args:
        least: The minimum of each component, (K,).
        components: Names of the components, K.
        most: Largest attainable weights without the minimum, (K,).

    Raises:
        ConstraintError: If there are such components; the message names all of them.
    """
    short = np.flatnonzero((most > _NOTHING) & (most < least - _NOTHING))
    if len(short):
        allowed = {int(i): _floor(float(most[i])) for i in short}
        listed = ", ".join(f"{components[i]!r} {weight:g}" for i, weight in allowed.items())
        tightest = min(allowed, key=lambda i: allowed[i])
        raise ConstraintError(
            f"min_weight is {least[tightest]:g}, and the other limits allow {listed} at most; "
            f"lower min_weight to {allowed[tightest]:g}, raise these limits, or set an upper "
            "bound of 0 to leave a component out"
        )


def _floor(value: float) -> float:
    """Round down to four significant digits."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 3)
    return float(np.floor(value / unit * (1 + _SAME)) * unit)


def _uncrossed(normal: _Normal) -> tuple[Array, Array]:
    """Let bounds which cross by a rounding error meet: at the one a user gave for this weight.

    The bounds 0 and 1 of the simplex itself come before both.
    """
    given = [c is None or np.count_nonzero(c.row) == 1 for c in normal.lower_from]
    meeting = np.where(given, normal.lower, normal.upper)
    meeting = np.clip(meeting, 0.0, 1.0)
    crossed = normal.lower > normal.upper
    return np.where(crossed, meeting, normal.lower), np.where(crossed, meeting, normal.upper)


def _normalize(constraints: Sequence[Constraint], k: int) -> _Normal:
    lower, upper = np.zeros(k), np.ones(k)
    lower_from: list[Constraint | None] = [None] * k
    upper_from: list[Constraint | None] = [None] * k
    rows = []
    for constraint in constraints:
        if constraint.row.max() <= constraint.bound and (k > 1 or not constraint.row.any()):
            continue  # holds on the whole simplex; a single weight may miss its bound by rounding
        constant = _common(constraint.row)
        rest, bound = constraint.row - constant, constraint.bound - constant
        support = np.flatnonzero(np.abs(rest) > _SAME)
        if len(support) != 1:
            rows.append(constraint)
            continue
        i = int(support[0])
        value = bound / rest[i]
        if rest[i] > 0 and value < upper[i]:
            upper[i], upper_from[i] = value, constraint
        elif rest[i] < 0 and value > lower[i]:
            lower[i], lower_from[i] = value, constraint
    return _Normal(lower, upper, lower_from, upper_from, rows)


def _common(row: Array) -> float:
    """Coefficient which, taken from all of a row, leaves the fewest weights in it.

    As the weights sum to 1, a constant may be taken from both sides: a share whose data every
    component holds alike, but one, is a bound of that one's weight.
    """
    if np.count_nonzero(row) == 1:
        return 0.0
    values, counts = np.unique(row, return_counts=True)
    return float(values[counts.argmax()])


def _clash_of_bounds(normal: _Normal) -> list[Constraint]:
    """Find a minimal set of bounds of single weights that exclude each other, or nothing."""
    crossed = np.flatnonzero(normal.lower > normal.upper + _TOUCHING)
    if len(crossed):
        return min((_crossing(normal, int(i)) for i in crossed), key=len)
    if normal.upper.sum() < 1.0 - _TOUCHING:
        return [c for c in normal.upper_from if c is not None]
    if normal.lower.sum() > 1.0 + _TOUCHING:
        # The fewest lower bounds that exceed 1 together are the largest ones.
        order = np.argsort(-normal.lower, kind="stable")
        count = int((np.cumsum(normal.lower[order]) <= 1.0 + _TOUCHING).sum()) + 1
        return [c for i in order[:count] if (c := normal.lower_from[i]) is not None]
    return []


def _crossing(normal: _Normal, i: int) -> list[Constraint]:
    """Name the constraints by which weight i has a lower bound above its upper one."""
    low, high = normal.lower_from[i], normal.upper_from[i]
    if normal.upper[i] < -_TOUCHING:  # breaks the simplex' own w >= 0, whatever the lower bound
        low = None
    elif normal.lower[i] > 1.0 + _TOUCHING:
        high = None
    return [c for c in (low, high) if c is not None]


def _rows_clash(normal: _Normal) -> bool:
    """Whether no point of the box-bounded simplex, known not to be empty, satisfies the rows."""
    if not normal.rows:
        return False
    return _linear.least_violation(*normal.matrix(), *_uncrossed(normal))[0] > _BROKEN


def _minimal_clash(constraints: Sequence[Constraint], k: int) -> list[Constraint]:
    """Deletion filter: drop every constraint without which the rest still clash.

    Chinneck and Dravnieks, "Locating minimal infeasible constraint sets in linear programs",
    ORSA Journal on Computing 3 (1991).
    """
    alone = [c for c in constraints if c.row.min() > c.bound + _BROKEN]
    if alone:
        return alone[:1]
    kept = list(constraints)
    for constraint in constraints:
        others = [c for c in kept if c is not constraint]
        normal = _normalize(others, k)
        if _clash_of_bounds(normal) or _rows_clash(normal):
            kept = others
    return kept


def _complaint(culprits: Sequence[Constraint]) -> str:
    texts = list(dict.fromkeys(c.text for c in culprits))  # a pin is two constraints of one text
    if len(texts) > 1:
        return f"no mixture can satisfy: {', '.join(texts)}; loosen one of them"
    culprit = culprits[0]
    low, high = sorted(culprit.told(end) for end in (culprit.row.min(), culprit.row.max()))
    return (
        f"no mixture can satisfy: {texts[0]}; loosen it, "
        f"as the components allow {low:g} to {high:g} only"
    )
