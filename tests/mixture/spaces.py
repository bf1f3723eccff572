"""Random spaces, and an account of what mixtures break that shares no code with the package."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from optuna_demix.mixture import Group, LinearConstraint, MixtureSpace

NAMES = ["web", "code", "math"]
HALF_WEB = {
    "web": {"web": 1.0},
    "code": {"web": 0.5, "code": 0.5},
    "math": {"web": 0.5, "math": 0.5},
}

# The published DeMix setting: token counts of its seven components, the cap in natural shares.
PAPER_COMPONENTS = ["general", "math1", "math2", "math3", "code1", "code2", "code3"]
PAPER_TOKENS = [1278.0, 284.0, 69.0, 100.0, 51.0, 141.0, 633.0]


def paper_space(**changes: Any) -> MixtureSpace:
    arguments: dict[str, Any] = {
        "tokens": PAPER_TOKENS,
        "budget": sum(PAPER_TOKENS),
        "max_epochs": 4,
    }
    return MixtureSpace(PAPER_COMPONENTS, **{**arguments, **changes})


def full_space(**changes: Any) -> MixtureSpace:
    """A space which uses every argument."""
    arguments: dict[str, Any] = {
        "prior": {"web": 6, "code": 3, "math": 1},
        "lower": {"code": 0.05},
        "upper": [0.9, 0.8, 0.5],
        "composition": HALF_WEB,
        "tokens": {"web": 6e9, "code": 2e9, "math": 3e8},
        "budget": 1e10,
        "max_epochs": {"math": 4},
        "groups": [Group("stem", ("code", "math"), lower=0.2, of="shares")],
        "name": "late",
    }
    return MixtureSpace(NAMES, **{**arguments, **changes})


@st.composite
def space_arguments(draw: st.DrawFn, *, largest: int = 24) -> dict[str, Any]:
    """Arguments of a space around a hidden mixture, so never empty; constraints often touch."""
    k = draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden = rng.dirichlet(np.full(k, draw(st.sampled_from([0.3, 1.0, 5.0]))))
    slack = st.sampled_from([0.0, 1e-3, 0.1, 1.0])
    names = [f"c{i}" for i in range(k)]
    arguments: dict[str, Any] = {}
    if draw(st.booleans()):
        low = np.maximum(0.0, hidden - draw(slack) * rng.random(k))
        arguments["lower"] = low * (rng.random(k) < 0.5)
    if draw(st.booleans()):
        high = np.minimum(1.0, hidden + draw(slack) * rng.random(k))
        arguments["upper"] = np.where(rng.random(k) < 0.5, high, 1.0)
    shares, datasets = hidden, names
    if draw(st.booleans()):
        datasets = [f"d{i}" for i in range(draw(st.integers(1, k + 2)))]
        table = rng.dirichlet(np.full(len(datasets), 0.5), size=k)
        if draw(st.booleans()):  # half of everything is the first dataset, as in the paper
            table = 0.5 * table
            table[:, 0] += 0.5
        arguments.update(composition=table, datasets=datasets)
        shares = hidden @ (table / table.sum(axis=1, keepdims=True))
    if draw(st.booleans()):
        tokens = shares * (1.0 + draw(slack) * rng.random(len(shares)))
        arguments.update(tokens=tokens, budget=1.0, max_epochs=1.0)
    groups = []
    for index in range(draw(st.integers(0, 3))):
        of = draw(st.sampled_from(["weights", "shares"]))
        pool, values = (names, hidden) if of == "weights" else (datasets, shares)
        size = int(rng.integers(1, len(pool) + 1))
        members = rng.choice(len(pool), size=size, replace=False)
        total, width = float(values[members].sum()), draw(slack)
        groups.append(
            Group(
                f"g{index}",
                tuple(pool[i] for i in members),
                lower=float(np.clip(total - width * rng.random(), 0.0, 1.0)),
                upper=float(np.clip(total + width * rng.random(), 0.0, 1.0)),
                of=of,
            )
        )
    constraints = []
    for _ in range(draw(st.integers(0, 2))):
        of = draw(st.sampled_from(["weights", "shares"]))
        pool, values = (names, hidden) if of == "weights" else (datasets, shares)
        coefficients = rng.normal(size=len(pool)) * (rng.random(len(pool)) < 0.7)
        if not coefficients.any():
            continue
        value, width = float(values @ coefficients), draw(slack)
        low, high = value - width * rng.random(), value + width * rng.random()
        sides = draw(st.sampled_from(["lower", "upper", "both"]))
        constraints.append(
            LinearConstraint(
                dict(zip(pool, coefficients.tolist(), strict=True)),
                lower=None if sides == "upper" else low,
                upper=None if sides == "lower" else high,
                of=of,
            )
        )
    arguments["constraints"] = constraints
    if draw(st.booleans()):
        arguments["prior"] = rng.random(k) * (rng.random(k) < 0.7) + 1e-9
    return {"components": names, "groups": groups, **arguments}


def spaces(*, largest: int = 24) -> st.SearchStrategy[MixtureSpace]:
    """A space of such arguments."""
    return space_arguments(largest=largest).map(lambda arguments: MixtureSpace(**arguments))


def sum_error(w: np.ndarray) -> float:
    return float(np.abs(w.sum(axis=-1) - 1.0).max())


def box_excess(space: MixtureSpace, w: np.ndarray) -> float:
    return float(max((space.lower - w).max(), (w - space.upper).max()))


def linear_excess(space: MixtureSpace, w: np.ndarray) -> float:
    """By how much caps and groups are broken at most; negative if they are not."""
    shares = w @ space.composition
    excess = [float((shares - space.caps).max())]
    for group in space.groups:
        names, values = (
            (space.components, w) if group.of == "weights" else (space.datasets, shares)
        )
        total = values[:, [names.index(member) for member in group.members]].sum(axis=1)
        excess += [float((total - group.upper).max()), float((group.lower - total).max())]
    for constraint in space.constraints:
        names, values = (
            (space.components, w) if constraint.of == "weights" else (space.datasets, shares)
        )
        total = values @ [constraint.coefficients.get(name, 0.0) for name in names]
        if constraint.upper is not None:
            excess.append(float((total - constraint.upper).max()))
        if constraint.lower is not None:
            excess.append(float((constraint.lower - total).max()))
    return max(excess)


def assert_allowed(space: MixtureSpace, w: np.ndarray) -> None:
    assert w.shape[-1] == len(space)
    assert np.isfinite(w).all()
    assert sum_error(w) <= 1e-12
    # Bounds which contradict each other by a rounding error cannot both hold to the last bit.
    assert box_excess(space, w) <= (0.0 if (space.lower < space.upper).any() else 1e-15)
    assert linear_excess(space, w) <= 1e-9
