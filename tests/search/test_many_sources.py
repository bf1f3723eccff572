"""Searches of mixtures of two dozen sources or more, with about as many trials."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import DemixSampler, MixtureSpace, recommend

K = 24
EPOCH = np.random.default_rng(0).dirichlet(np.full(K, 3.0))
WORTH = np.random.default_rng(1).uniform(0.0, 1.0, K)


def _space(k: int = K) -> MixtureSpace:
    return MixtureSpace([f"c{i}" for i in range(k)], prior=(EPOCH[:k] / EPOCH[:k].sum()).tolist())


def _score(W: np.ndarray) -> np.ndarray:
    """Sources of different worth, none of which is worth much more of than there is."""
    return np.asarray(np.sqrt(W * EPOCH) @ WORTH)


def test_fewer_trials_than_sources_find_much_of_what_there_is_to_gain() -> None:
    space = _space()
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=1))
    study.optimize(
        lambda trial: float(_score(np.array(list(space.suggest(trial).values())))), n_trials=20
    )
    best = EPOCH * WORTH**2 / (EPOCH @ WORTH**2)  # as the inequality of Cauchy and Schwarz has it
    found = np.array(list(recommend(study).merge_weights.values()))
    top, reached, prior = _score(np.stack([best, found, EPOCH]))
    assert (top - reached) / (top - prior) < 0.7


@pytest.mark.parametrize(("k", "generations"), [(K - 1, 1), (K, 4)])
def test_candidates_of_many_sources_are_refined_more_often(k: int, generations: int) -> None:
    space = _space(k)
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(space, seed=0))
    study.optimize(lambda trial: sum(list(space.suggest(trial).values())[:3]), n_trials=9)
    fit = DemixSampler.fit_of(study.sampler, study)  # type: ignore[arg-type]
    assert fit is not None
    size = 64
    fit.grow_pool(size=size)
    assert len(fit.pool.X) == 2 * size + size // 4 + generations * (size // 2)
