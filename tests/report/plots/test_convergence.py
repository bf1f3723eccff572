from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, gather
from optuna_demix.report.plots import plot_convergence
from tests.report.plots.traces import traces_of

pytestmark = pytest.mark.xdist_group("report")


def test_convergence_is_the_studys_own(data: ReportData, study: optuna.Study) -> None:
    figure = plot_convergence(data)
    (trials,), (best,) = traces_of(figure, "trial"), traces_of(figure, "best so far")
    numbers = [t.number for t in study.trials if t.values is not None]
    np.testing.assert_array_equal(trials.x, numbers)
    values = np.array([study.trials[n].values for n in numbers])
    np.testing.assert_allclose(trials.customdata, values, rtol=1e-6)
    np.testing.assert_allclose(trials.y, data.recommendation.merit.told(values), rtol=1e-6)
    assert np.all(np.diff(best.y[:-1]) > 0)
    assert best.y[-1] == trials.y.max() and best.x[-1] == numbers[-1]
    (recommended,) = traces_of(figure, "recommended (predicted)")
    assert recommended.y[0] == data.recommendation.mixtures["recommended"].composite


def test_trials_that_break_a_constraint_are_left_out(
    study: optuna.Study, space: MixtureSpace
) -> None:
    bad = {7, 11}
    constrained = optuna.create_study(directions=["maximize"] * 3)
    for trial in study.trials[:12]:
        trial.system_attrs["constraints:size"] = 1.0 if trial.number in bad else -1.0
        constrained.add_trial(trial)
    data = gather(constrained, space)
    assert set(data.numbers[~np.isfinite(data.merit)]) == bad
    shown = plot_convergence(data).data[0].x
    assert set(shown) == set(range(12)) - bad
