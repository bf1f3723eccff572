"""What further trials may still add."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_demix import MixtureSpace
from optuna_demix.search.proposals.acquisition import Composite, expected_gain
from optuna_demix.search.proposals.convergence import _gain_along, converge
from optuna_demix.search.proposals.fit import Candidates, Fit
from optuna_demix.search.rows.history import Failures, History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets

SPACE = MixtureSpace(["web", "code", "math"])


def test_what_lies_where_trials_fail_is_no_gain() -> None:
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    near = SPACE.perturb(np.tile([0.6, 0.2, 0.2], (20, 1)), 0.1, rng)
    for w in np.concatenate([SPACE.sample(20, rng), near]):
        if w[0] <= 0.6:
            study.add_trial(SPACE.create_trial(w, float(w[0])))
        else:
            study.add_trial(SPACE.create_trial(w, state=TrialState.FAIL))
    joint = JointSpace([SPACE], {})
    history = History(joint, Targets.of(study))
    history.update(study.get_trials(deepcopy=False))
    seeing = Fit("auto", joint, history.targets, history.arrays(), seed=0)
    blind = seeing.with_failures(Failures(np.empty(0, dtype=np.int64), np.empty((0, 3))))
    gains, best = [], []
    for fit in (seeing, blind):
        fit.grow_pool("mean")
        outlook = converge(fit, Composite("mean", fit.reference))
        gains.append(outlook.expected_gain)
        best.append(fit.pool.X[int(np.argmax(outlook.merit)), 0])
    assert 0.5 < best[0] <= 0.6
    assert best[1] > 0.9
    # What is expected beyond the border counts as much as it is likely to succeed.
    assert gains[0] < 0.1


def test_an_exact_gain_follows_the_merit() -> None:
    """Ranks are dense in the middle: a line through two of them led far beyond the best."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(2000, 1)) * 0.05 - 0.1
    merit = Composite("rank", reference)
    X = np.zeros((2, 1))
    pool = Candidates(
        X, np.array([[0.1], [-0.1]]), np.array([[0.001], [0.05]]), np.empty((2, 0)),
        np.empty((2, 0)), np.full(2, np.inf), np.zeros(2),
    )  # fmt: skip
    level = float(merit(np.array([[0.1]]))[0])
    draws = pool.mean[:, 0] + pool.std[:, 0] * rng.normal(size=(200_000, 1))
    true = [np.maximum(merit(column[:, None]) - level, 0.0).mean() for column in draws.T]
    assert _gain_along(pool, merit, level) == pytest.approx(true, abs=2e-4)
    line = merit(pool.mean + pool.std) - merit(pool.mean)
    assert expected_gain(merit(pool.mean) - level, line)[1] > 20 * true[1]
