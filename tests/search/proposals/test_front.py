from __future__ import annotations

import numpy as np
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.proposals.front import Front
from optuna_demix.search.rows.history import History, Row
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets

SPACE = MixtureSpace(["a", "b", "c"])


def fit_of(values: np.ndarray, X: np.ndarray, limits: np.ndarray | None = None) -> Fit:
    """A fit to objective values (n, m) of mixtures (n, 3)."""
    m = values.shape[1]
    targets = Targets((), np.eye(m), np.ones(m))
    joint = JointSpace([SPACE], {})
    costs = [{} if limits is None else {"cost": float(c)} for c in (limits or np.zeros(len(X)))]
    rows = [
        Row(i, x, y, y, cost) for i, (x, y, cost) in enumerate(zip(X, values, costs, strict=True))
    ]
    history = History(joint, targets, rows)
    fit = Fit("auto", joint, targets, history.arrays(), seed=0)
    fit.grow_pool("rank", size=512)
    return fit


@pytest.fixture(scope="module")
def mixtures() -> np.ndarray:
    return SPACE.sample(40, np.random.default_rng(0))


def test_it_is_spread_from_one_end_to_the_other(mixtures: np.ndarray) -> None:
    fit = fit_of(mixtures[:, :2], mixtures)
    rows = Front(fit).members(12)
    X = fit.pool.X[rows]
    assert len(rows) == 12 and len(set(rows.tolist())) == 12
    assert X[:, 2].max() < 0.05  # nobody wants c
    assert X[:, 0].max() > 0.95 and X[:, 0].min() < 0.05
    assert np.diff(np.sort(X[:, 0])).max() < 0.25
    mean = fit.pool.mean[rows]
    for one in mean:  # none is better than another in everything
        assert not np.any(np.all(mean > one, axis=1))


def test_objectives_that_agree_have_one_best(mixtures: np.ndarray) -> None:
    quality = -((mixtures - [0.5, 0.3, 0.2]) ** 2).sum(axis=1)
    fit = fit_of(np.stack([quality, 2.0 * quality], axis=1), mixtures)
    rows = Front(fit).members(12)
    assert 1 <= len(rows) <= 3
    assert np.abs(fit.pool.X[rows] - [0.5, 0.3, 0.2]).max() < 0.1


def test_nearness_to_the_prior_counts(mixtures: np.ndarray) -> None:
    fit = fit_of(mixtures[:, :2], mixtures)
    rows = Front(fit, kl=100.0).members(12)
    assert np.abs(fit.pool.X[rows] - SPACE.prior).max() < 0.05
