"""A surrogate fitted to some trials, and the candidates it ranks. No study, no storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.surrogate import Surrogate
from optuna_demix.surrogate._acquire import Composite, finite_scores, nearest_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._history import Targets
    from optuna_demix._joint_space import JointSpace

    FloatArray = NDArray[np.float64]

POOL = 2048  # fresh candidates of one fit
_ELITES = 16  # best trials that candidates are grown around
_REFINED = 64  # best candidates of the pool that a second generation grows around
_SCALES = (-2.7, -0.5)  # log10 of the share of data that a perturbation moves


class Fit:
    """A surrogate fitted to the first trials of a study, with a pool of predicted candidates.

    Args:
        kind: Kind of the surrogate.
        joint: The parameters of a row.
        targets: What is regressed, and how objectives follow from it.
        X: Rows (n, d) of the trials.
        Y: Their regressed scores (n, b), higher is better.
        seed: Seed of the surrogate and of the pool.
    """

    def __init__(
        self,
        kind: str,
        joint: JointSpace,
        targets: Targets,
        X: FloatArray,
        Y: FloatArray,
        seed: int,
    ) -> None:
        self.joint = joint
        self.targets = targets
        self.n_trials = len(X)
        self.seed = seed
        self.surrogate = Surrogate(kind, seed=seed % 2**31, n_mixture=joint.n_mixture)
        self.surrogate.fit(X, finite_scores(Y))
        self._trained_on = X
        self.X: FloatArray = np.empty((0, joint.n_columns))
        self.mean: FloatArray = np.empty((0, targets.mixing.shape[1]))
        self.std: FloatArray = self.mean
        self.reference: FloatArray = self.mean

    def predict(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations (n, m) of the objectives at rows (n, d)."""
        mixing = self.targets.mixing
        mean, std = self.surrogate.posterior(X)
        return mean @ mixing, np.sqrt(std**2 @ mixing**2)

    def grow_pool(
        self, elite_merit: FloatArray, *, size: int = POOL, generations: int = 1
    ) -> None:
        """Fill the pool: fresh points, moves around the best trials, blends, and refinements.

        Args:
            elite_merit: Merit (n,) of the trials the surrogate was fitted to.
            size: Number of fresh points; the others are in proportion.
            generations: How often the best of the pool are grown around once more.
        """
        rng = np.random.default_rng([self.seed, 2])
        fresh = self.joint.sample(size, rng)
        elites = self._trained_on[np.argsort(-elite_merit, kind="stable")[:_ELITES]]
        grown = _around(elites, self.joint, size, rng)
        left, right = rng.integers(len(elites), size=(2, size // 4))
        blends = self.joint.blend(elites[left], elites[right], rng)
        self.X = np.concatenate([fresh, grown, blends])
        self.mean, self.std = self.predict(self.X)
        # Ranks refer to what a random mixture would reach, however crowded the optimum becomes.
        self.reference = self.mean[:size]
        for _ in range(generations):
            merit = Composite("rank", self.reference)(self.mean + self.std)
            best = self.X[np.argsort(-merit, kind="stable")[:_REFINED]]
            refined = _around(best, self.joint, size // 2, rng)
            mean, std = self.predict(refined)
            self.X = np.concatenate([self.X, refined])
            self.mean = np.concatenate([self.mean, mean])
            self.std = np.concatenate([self.std, std])

    def best_mean(self, merit: Composite, n: int, *, radius: float) -> FloatArray:
        """Mean (d,) of the n best candidates that lie around the very best one.

        Their errors cancel in the mean. Only neighbours count: ranks can have several optima,
        and what lies halfway between two of them may be worse than both.

        Args:
            merit: Merit of objective scores.
            n: Number of candidates to average, at most.
            radius: Largest total variation from the best one.
        """
        order = np.argsort(-merit(self.mean), kind="stable")
        near = nearest_distance(self.X[order], self.X[order[:1]]) <= radius
        mean: FloatArray = self.X[order[near][:n]].mean(axis=0)
        return mean


def _around(
    centers: FloatArray, joint: JointSpace, n: int, rng: np.random.Generator
) -> FloatArray:
    """Rows (n, d) around random centers (c, d), from tiny moves to large ones."""
    scales = np.logspace(*_SCALES, 8)
    chosen = centers[rng.integers(len(centers), size=n)]
    parts = [
        joint.perturb(part, float(scale), rng)
        for part, scale in zip(np.array_split(chosen, len(scales)), scales, strict=True)
        if len(part)
    ]
    return np.concatenate(parts)
