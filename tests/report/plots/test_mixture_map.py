from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix.report import ReportData
from optuna_demix.report.plots import plot_mixture_map
from tests.report.plots.traces import traces_of

pytestmark = pytest.mark.xdist_group("report")


def test_the_map_shows_the_three_largest_components(data: ReportData, study: optuna.Study) -> None:
    figure = plot_mixture_map(data)
    weights = data.recommendation.merge_weights
    largest = sorted(weights, key=lambda name: -weights[name])[:3]
    layout = figure.layout.ternary
    corners = [layout[f"{axis}axis"].title.text for axis in "abc"]
    assert sorted(corners) == sorted(largest)
    (trials,), (star,) = traces_of(figure, "trial"), traces_of(figure, "recommended")
    assert len(trials.a) == 60
    for i, number in enumerate(trials.customdata[:, 0].astype(int)):
        params = study.trials[number].params
        given = [trials.a[i], trials.b[i], trials.c[i]]
        np.testing.assert_allclose(given, [params[name] for name in corners], rtol=1e-5)
        row = np.flatnonzero(data.numbers == number)[0]
        assert trials.marker.color[i] == np.float32(data.composite[row])
    assert [star.a[0], star.b[0], star.c[0]] == pytest.approx([weights[n] for n in corners])
