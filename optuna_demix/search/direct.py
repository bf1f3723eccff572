"""The best mixture of a function that is cheap enough to be optimized itself.

No surrogate and no trials: where mixtures are scored a thousand a second, the composite of the
objectives is climbed from many starts, along its gradient where it has one and by random moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.rows.joint_space import LEAST_PRIOR, JointSpace

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace

_REFERENCE = 1024  # random mixtures that ranks refer to, and the first starts
_ELITES = 16
_MOVES = 16  # of each elite in each round
_ROUNDS = 16
_WIDEST, _NARROWEST = 0.1, 1e-3  # standard deviations of a weight's move, first and last round
_CLIMBS = 6  # starts of a climb along the gradient
_STEPS = 60
_FIRST_STEP, _LAST_STEP = 0.1, 1e-7  # how far a step moves the weights
_REACH = 0.1  # share of an objective's spread over which a rank's slope is taken

Gradients: TypeAlias = "Callable[[FloatArray], FloatArray]"


@dataclass(frozen=True)
class Optimum:
    """What was found.

    Attributes:
        weights: The best merge weights, (K,).
        merit: The merit (n,) of merge weights (n, K) that they are the best of.
        composite: What people are told of it (n,), without what a divergence from the prior
            costs; NaN where an objective has no value.
    """

    weights: FloatArray
    merit: Callable[[FloatArray], FloatArray]
    composite: Callable[[FloatArray], FloatArray]


def optimize(
    space: MixtureSpace,
    values: Callable[[FloatArray], FloatArray],
    *,
    gradients: Gradients | None = None,
    composite: str | Sequence[float] = "rank",
    kl: float = 0.0,
    seed: int = 0,
) -> Optimum:
    """Find the mixture of a space with the best composite.

    Args:
        space: The mixtures; constraints of every kind hold.
        values: Objectives (n, m) of merge weights (n, K), higher is better; NaN where there is
            none.
        gradients: Their derivatives (m, K) with respect to merge weights (K,); ``None`` where
            there are none.
        composite: Merit of several objectives: ``"rank"`` (mean percentile rank among random
            mixtures), ``"mean"`` or weights.
        kl: Merit given up for each nat of divergence from the prior.
        seed: Seed of everything that is random.
    """
    rng = np.random.default_rng(seed)
    drawn = space.sample(_REFERENCE, rng)
    scored = values(drawn)
    merge = _Merit(Composite(composite, scored), JointSpace([space], {}), kl)
    fixed = np.stack([space.prior, space.uniform])
    X = np.concatenate([fixed, drawn])
    merit = merge(X, np.concatenate([values(fixed), scored]))
    finite = scored[np.isfinite(scored).all(axis=1)]
    spread = finite.std(axis=0) if len(finite) else np.ones(scored.shape[1])
    for round_ in range(_ROUNDS):
        X, merit = _best(X, merit)
        if gradients is not None and round_ in (0, _ROUNDS - 1):
            X, merit = _climb(space, values, gradients, merge, spread, X, merit)
        scale = _WIDEST * (_NARROWEST / _WIDEST) ** (round_ / (_ROUNDS - 1))
        moved = space.perturb(np.repeat(X, _MOVES, axis=0), scale, rng)
        X = np.concatenate([X, moved])
        merit = np.concatenate([merit, merge(moved, values(moved))])
    return Optimum(
        X[int(np.argmax(merit))],
        lambda W: merge(W, values(W)),
        lambda W: merge.told(values(W)),
    )


@dataclass(frozen=True)
class _Merit:
    """The composite, less what a divergence from the prior costs."""

    of_objectives: Composite
    joint: JointSpace
    kl: float

    def composite(self, Y: FloatArray) -> FloatArray:
        merit: FloatArray = np.where(np.isfinite(Y).all(axis=1), self.of_objectives(Y), -np.inf)
        return merit

    def told(self, Y: FloatArray) -> FloatArray:
        told: FloatArray = np.where(np.isfinite(Y).all(axis=1), self.of_objectives.told(Y), np.nan)
        return told

    def __call__(self, X: FloatArray, Y: FloatArray) -> FloatArray:
        merit = self.composite(Y)
        return merit - self.kl * self.joint.divergence(X) if self.kl > 0 else merit

    def slopes(self, y: FloatArray, reach: FloatArray) -> FloatArray:
        """Slope (m,) of the composite in each objective, over a stretch of it: ranks are steps."""
        sides = np.concatenate([y + np.diag(reach), y - np.diag(reach)])
        upper, lower = np.split(self.of_objectives(sides), 2)
        slopes: FloatArray = (upper - lower) / (2.0 * reach)
        return slopes


def _best(X: FloatArray, merit: FloatArray) -> tuple[FloatArray, FloatArray]:
    order = np.argsort(-merit, kind="stable")[:_ELITES]
    return X[order], merit[order]


def _climb(
    space: MixtureSpace,
    values: Callable[[FloatArray], FloatArray],
    gradients: Gradients,
    merge: _Merit,
    spread: FloatArray,
    X: FloatArray,
    merit: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Move the best points along the projected gradient as long as that gains."""
    X, merit = X.copy(), merit.copy()
    reach = _REACH * np.where(spread > 0, spread, 1.0)
    for row in range(min(_CLIMBS, len(X))):
        step = _FIRST_STEP
        for _ in range(_STEPS):
            w = X[row]
            direction = merge.slopes(values(w[None])[0], reach) @ gradients(w)
            if merge.kl > 0:
                direction -= merge.kl * np.log(
                    np.maximum(w, 1e-12) / np.maximum(space.prior, LEAST_PRIOR)
                )
            direction -= direction.mean()
            length = float(np.abs(direction).max())
            if not np.isfinite(length) or length == 0.0:
                break
            tried = step / 4.0 ** np.arange(4)
            points = space.project(w + np.outer(tried / length, direction))
            found = merge(points, values(points))
            best = int(np.argmax(found))
            if found[best] > merit[row]:
                X[row], merit[row], step = points[best], found[best], 2.0 * tried[best]
            else:
                step = tried[-1] / 4.0
                if step < _LAST_STEP:
                    break
    return X, merit
