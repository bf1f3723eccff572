"""The predicted Pareto front: trade-offs between objectives. Arrays only: no study, no storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_demix.search.proposals.acquisition import Composite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_demix._typing import FloatArray
    from optuna_demix.search.proposals.fit import Candidates, Fit

_GENERATIONS = 4  # of candidates grown along the front
_CHILDREN = 2048  # of one generation; half are moves, half blends of two members
_SCALES = (-2.7, -0.5)  # log10 of the share of data that a move shifts
_APART = 0.01  # of an objective's range on the front: least distance of members that are shown
_SPAN = 0.05  # of the range among random mixtures: a range below counts as this much


class Front:
    """Candidates of a fit of which none is predicted to be better than another in everything.

    Objectives count as percentile ranks, less the penalty for the divergence from the prior.

    Args:
        fit: A fit with a grown pool. The pool grows further along the front.
        kl: Rank given up in every objective for each nat of divergence from the prior.
    """

    def __init__(self, fit: Fit, *, kl: float = 0.0) -> None:
        self._fit = fit
        self._kl = kl
        n_objectives = fit.reference.shape[1]
        self._ranks = [Composite("rank", fit.reference[:, [j]]) for j in range(n_objectives)]
        self._grow()

    def members(self, n: int) -> NDArray[np.intp]:
        """Indices in the pool of at most n members, spread along the front.

        The first is the one with the best mean rank. Then come the best in each objective, and
        again and again the member that is farthest from all that were chosen (farthest-point
        clustering, Gonzalez 1985), in units of each objective's range on the front.

        Returns:
            The indices (at most n,); fewer where the front is small, and none if no candidate is
            expected to keep its constraints.
        """
        ranks = self._ranks_of(self._fit.pool)
        front = self._on_front(ranks)
        if len(front) == 0:
            return front
        scores = self._fit.pool.mean[front]
        span = np.maximum(np.ptp(scores, axis=0), _SPAN * np.ptp(self._fit.reference, axis=0))
        scores = scores / np.where(span > 0.0, span, 1.0)  # (f, m)
        chosen: list[int] = [int(ranks[front].mean(axis=1).argmax())]
        ends = scores.argmax(axis=0)
        distance = _distance(scores, scores[chosen[0]])
        while len(chosen) < n and distance.max() >= _APART:
            far = ends[distance[ends] >= _APART]
            chosen.append(int(far[0] if len(far) else distance.argmax()))
            distance = np.minimum(distance, _distance(scores, scores[chosen[-1]]))
        return front[chosen]

    def _grow(self) -> None:
        """Let the pool grow around the front and between its members."""
        fit, joint = self._fit, self._fit.joint
        rng = np.random.default_rng([fit.seed, 4])
        for _ in range(_GENERATIONS):
            front = self._on_front(self._ranks_of(fit.pool))
            if len(front) == 0:
                return
            X = fit.pool.X[front]
            left, right = X[rng.integers(len(X), size=(2, _CHILDREN // 2))]
            scales = np.logspace(*_SCALES, 8)
            parents = np.array_split(left, len(scales))
            moved = [
                joint.perturb(part, float(scale), rng)
                for part, scale in zip(parents, scales, strict=True)
            ]
            children = np.concatenate([*moved, joint.blend(left, right, rng)])
            fit.pool = fit.pool.join(fit.predict(children))

    def _ranks_of(self, candidates: Candidates) -> FloatArray:
        """Percentile ranks (n, m) of predicted scores, less the penalty."""
        columns = [rank(candidates.mean[:, [j]]) for j, rank in enumerate(self._ranks)]
        ranks: FloatArray = np.stack(columns, axis=1)
        if self._kl > 0.0:
            ranks = ranks - self._kl * self._fit.joint.divergence(candidates.X)[:, None]
        return ranks

    def _on_front(self, ranks: FloatArray) -> NDArray[np.intp]:
        """Indices of those that nothing dominates, among candidates that can be recommended."""
        from optuna.study._multi_objective import _is_pareto_front

        pool = self._fit.pool
        kept = np.flatnonzero(np.all(pool.limits <= 0.0, axis=1) & (pool.risk() <= 0.0))
        if len(kept) == 0:
            return kept
        on_front: NDArray[np.bool_] = _is_pareto_front(-ranks[kept], assume_unique_lexsorted=False)
        return kept[on_front]


def _distance(scores: FloatArray, one: FloatArray) -> FloatArray:
    """Largest difference (n,) in any objective between scores (n, m) and those of one (m,)."""
    distance: FloatArray = np.abs(scores - one).max(axis=1)
    return distance
