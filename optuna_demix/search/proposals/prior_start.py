"""The first trials where there is a prior mean: its optimum, and mixtures that it holds for good.

A wrong prior mean must not starve the start, so that every other trial is spread over all mixtures
as it is without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.direct import optimize
from optuna_demix.search.proposals.acquisition import nearest_distance

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.rows.joint_space import JointSpace
    from optuna_demix.search.rows.prior_mean import PriorMean

_FRESH = 1024  # random mixtures that are ranked
_GOOD = 0.06  # best share of them; whatever is as good is good
_SCALES = (0.02, 0.05, 0.1, 0.2)  # shares of data that move around the optimum
_MOVED = 128  # mixtures at each of these
_NEAR = 0.02  # total variation from a trial within which the optimum counts as tried
_CHOICE = 32  # good mixtures of one trial, of which the farthest is taken


def is_guided(number: int) -> bool:
    """Whether the startup trial of a number follows the prior mean."""
    return number % 2 == 1


def good_rows(
    prior: PriorMean,
    joint: JointSpace,
    composite: str | Sequence[float],
    *,
    kl: float = 0.0,
    seed: int = 0,
) -> FloatArray:
    """Rows (n, d) that a prior mean holds for good, its optimum first; none if it knows nothing.

    Args:
        prior: The prior mean.
        joint: The parameters; those beside the mixture are random.
        composite: Merit of several objectives.
        kl: Merit given up for each nat of divergence from the prior mixture.
        seed: Seed of all of it.
    """
    (space,) = joint.spaces
    found = optimize(space, prior.objectives, composite=composite, kl=kl, seed=seed)
    rng = np.random.default_rng([seed, 1])
    center = np.repeat(found.weights[None], _MOVED, axis=0)
    moved = [space.perturb(center, scale, rng) for scale in _SCALES]
    W = np.concatenate([found.weights[None], space.sample(_FRESH, rng), *moved])
    merit = found.merit(W)
    if not np.isfinite(merit[0]):
        return np.empty((0, joint.n_columns))
    good = merit >= np.quantile(merit[1 : 1 + _FRESH], 1.0 - _GOOD, method="lower")
    good &= np.isfinite(merit)
    good[0] = True
    rows = joint.sample(int(good.sum()), rng)
    rows[:, : joint.n_mixture] = W[good]
    return rows


def choices(
    rows: FloatArray, taken: FloatArray, rng: np.random.Generator, *, min_distance: float
) -> FloatArray:
    """Good rows (n, d) that one trial chooses among: the optimum alone until it was tried."""
    if nearest_distance(rows[:1], taken)[0] >= max(_NEAR, min_distance):
        return rows[:1]
    chosen: FloatArray = rows[rng.permutation(len(rows))[:_CHOICE]]
    return chosen
