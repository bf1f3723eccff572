from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest

from optuna_demix.report import ReportData
from optuna_demix.report.plots import plot_predictions
from tests.report.plots.traces import traces_of
from tests.report.studies import CAPABILITIES

pytestmark = pytest.mark.xdist_group("report")


def test_predictions_stand_against_what_came_true(data: ReportData, study: optuna.Study) -> None:
    figure = plot_predictions(data)
    for j, name in enumerate(CAPABILITIES):
        axis = "x" if j == 0 else f"x{j + 1}"
        proposed, held_out = (
            next(t for t in traces_of(figure, kind) if t.xaxis == axis)
            for kind in ("predicted when proposed", "held-out prediction")
        )
        assert len(held_out.x) == 60 and len(proposed.x) == 44  # the first 16 were drawn blindly
        for i, number in enumerate(proposed.customdata[:, 0].astype(int)):
            trial = study.trials[number]
            assert proposed.x[i] == np.float32(trial.user_attrs[f"predicted:{name}"])
            assert proposed.y[i] == np.float32(trial.values[j])
        # A surrogate that had seen a trial would be closer to it than one trial's noise.
        residual = np.std(held_out.x - held_out.y)
        assert 0.002 < residual < 0.05


def test_names_are_shown_as_they_are(data: ReportData) -> None:
    odd = replace(data, objectives=("a<b>", "x&y", "z"))
    titles = [a.text for a in plot_predictions(odd).layout.annotations]
    assert titles[:2] == ["a&lt;b&gt;", "x&amp;y"]
