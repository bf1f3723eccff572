from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData
from optuna_demix.report.plots import plot_best_mixtures
from optuna_demix.report.plots.best_mixtures import parts_of
from tests.report.studies import COMPONENTS

pytestmark = pytest.mark.xdist_group("report")


def test_the_best_mixtures_add_up_and_stand_in_order(
    data: ReportData, study: optuna.Study, space: MixtureSpace
) -> None:
    figure = plot_best_mixtures(data)
    left = [bar for bar in figure.data if bar.xaxis == "x"]
    right = [bar for bar in figure.data if bar.xaxis == "x2"]
    assert [bar.name for bar in left] == list(COMPONENTS) == [bar.name for bar in right]
    for bars in (left, right):
        np.testing.assert_allclose(sum(bar.x for bar in bars), 100, rtol=1e-5)
    assert list(left[0].y[:2]) == ["recommended", "prior"]
    shown = [int(label.split()[1]) for label in left[0].y[2:]]
    assert shown[0] == data.recommendation.best_trial
    merits = left[0].customdata[2:]
    assert np.all(np.diff(merits) <= 0) and merits[0] == np.float32(np.nanmax(data.composite))
    for row, number in enumerate(shown, start=2):
        weights = [study.trials[number].params[name] for name in COMPONENTS]
        np.testing.assert_allclose([bar.x[row] / 100 for bar in left], weights, rtol=1e-5)
        np.testing.assert_allclose(
            [bar.x[row] / 100 for bar in right], space.data_shares(weights), rtol=1e-5, atol=1e-7
        )
    by_name = {bar.name: bar.marker.color for bar in left}
    assert all(by_name[bar.name] == bar.marker.color for bar in right)
    assert len(set(by_name.values())) == len(COMPONENTS)


def test_many_components_keep_their_colors_apart(data: ReportData) -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(30), size=5)
    names = [f"d{i}" for i in range(30)]
    parts = parts_of(names, table)
    assert len(parts) == 12 and parts[-1][0] == "19 others"
    np.testing.assert_allclose(sum(part for _, part in parts), 1.0)
    kept = {name for name, _ in parts[:-1]}
    assert names[int(table.mean(axis=0).argmax())] in kept
