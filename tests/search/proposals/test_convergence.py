"""What further trials may still add."""

from __future__ import annotations

import numpy as np
import optuna

from optuna_demix import DemixSampler, MixtureSpace
from optuna_demix.search.proposals.acquisition import Composite
from optuna_demix.search.proposals.convergence import converge
from optuna_demix.search.proposals.fit import Fit
from optuna_demix.search.rows.history import Failures, History
from optuna_demix.search.rows.joint_space import JointSpace
from optuna_demix.search.rows.targets import Targets

SPACE = MixtureSpace(["web", "code", "math"])


def test_what_lies_where_trials_fail_is_no_gain() -> None:
    study = optuna.create_study(direction="maximize", sampler=DemixSampler(SPACE, seed=0))

    def objective(trial: optuna.Trial) -> float:
        web = SPACE.suggest(trial)["web"]
        return web if web <= 0.6 else float("nan")

    study.optimize(objective, n_trials=40)
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
