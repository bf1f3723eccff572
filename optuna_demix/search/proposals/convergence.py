"""How much further trials may still add. Arrays only: no study, no storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optuna_demix.search.proposals.acquisition import expected_gain, feasible_first
from optuna_demix.search.proposals.noise import noise_near_best

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.search.proposals.fit import Candidates, Fit, Merit

_NODES = 15  # merits that an expectation is taken over


def least_trials(n_components: int) -> int:
    """Finished trials before a fit of K components is believed to have converged: 4 K + 8."""
    return 4 * n_components + 8


class Outlook(NamedTuple):
    """What a fit expects of its candidates.

    Attributes:
        merit: Merit (n,) of the fit's pool, as predicted.
        expected_gain: Merit that the most promising candidate is expected to add to the best
            predicted one.
        noise: Standard deviation of one trial's merit about its prediction, at the best.
        noise_of_scores: The same (m,) of each objective's score.
    """

    merit: FloatArray
    expected_gain: float
    noise: float
    noise_of_scores: FloatArray

    @property
    def gain_in_noise(self) -> float:
        """The expected gain, in units of the noise; 0 where there is no gain."""
        if self.expected_gain <= 0.0:
            return 0.0
        return self.expected_gain / self.noise if self.noise > 0.0 else float("inf")


def converge(fit: Fit, merit: Merit, *, kl: float = 0.0, exact: bool = False) -> Outlook:
    """Compare what the candidates may still add with the noise of one trial.

    The spread of a merit is that of its objectives, taken one standard deviation up: exact for
    a mean of objectives that err together, an upper bound where they err apart. Of ranks it is too
    wide for a candidate far below the best: they are dense in the middle.

    Args:
        fit: A fit with a grown pool.
        merit: Merit (n,) of objective scores (n, m), higher is better.
        kl: Merit given up for each nat of divergence from the prior.
        exact: Follow the merit along the spread of the objectives instead.
    """
    pool = fit.pool
    penalty = kl * fit.joint.divergence(pool.X) if kl > 0 else 0.0
    raw = merit(pool.mean)
    ranked = fit.rank(pool, merit, kl=kl)
    best = int(np.argmax(ranked))
    level = feasible_first(raw - penalty, pool.limits)[best]
    possible = np.all(pool.limits - pool.limits_std <= 0.0, axis=1)
    if exact:
        gains = pool.success * _gain_along(pool, merit, penalty + level)
    else:
        spread = merit(pool.mean + pool.std) - raw
        gains = pool.success * expected_gain(raw - penalty - level, spread)
    of_scores = noise_near_best(fit, merit)
    noisy = merit(pool.mean[[best]] + of_scores)[0] - raw[best]
    return Outlook(ranked, float(gains[possible].max(initial=0.0)), float(noisy), of_scores)


def _gain_along(pool: Candidates, merit: Merit, level: FloatArray | float) -> FloatArray:
    """Expected merit (n,) above a level, of objectives that err together, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    gain = np.zeros(len(pool.X))
    for z, weight in zip(nodes, weights / weights.sum(), strict=True):
        gain += weight * np.maximum(merit(pool.mean + z * pool.std) - level, 0.0)
    return gain
