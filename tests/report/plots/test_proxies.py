from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
import scipy.stats

from optuna_demix import MixtureSpace
from optuna_demix.attributes import MERGED_PREFIX, PROBABILITY_PREFIX
from optuna_demix.report import ReportData, figures, gather
from optuna_demix.report.plots import plot_proxies
from tests.report.plots.traces import traces_of
from tests.report.studies import CAPABILITIES, make_study

pytestmark = pytest.mark.xdist_group("report")

WRITTEN = "gsm8k/exact_match"  # of math: no probability mixture scores it


@pytest.fixture(scope="module")
def both(space: MixtureSpace) -> tuple[optuna.Study, ReportData]:
    """A study of which half the trials carry what the probability mixture says."""
    study = make_study(16, space=space)
    rng = np.random.default_rng(2)
    copy = make_study(0, space=space, name="both")
    for trial in study.get_trials():
        if trial.number % 2:
            for names in CAPABILITIES.values():
                for name in names:
                    if name != WRITTEN:
                        score = trial.user_attrs[f"score:{name}"]
                        apart = 0.02 * rng.standard_normal()
                        trial.user_attrs[MERGED_PREFIX + name] = score - apart
                        trial.user_attrs[PROBABILITY_PREFIX + name] = score + apart
        copy.add_trial(trial)
    return copy, gather(copy, space)


def test_each_objective_of_both_proxies_has_a_panel(
    both: tuple[optuna.Study, ReportData],
) -> None:
    study, data = both
    figure = figures(data)["demix-proxies"]
    titles = [a.text for a in figure.layout.annotations]
    assert [title.split("<br>")[0] for title in titles] == ["general", "code"]
    for j, name in enumerate(["general", "code"]):
        (points,) = traces_of(figure, name)
        assert len(points.x) == 8
        for x, y, number in zip(points.x, points.y, points.customdata[:, 0], strict=True):
            trial = study.trials[int(number)]
            mixed, merged = (
                np.mean([trial.user_attrs[prefix + one] for one in CAPABILITIES[name]])
                for prefix in (PROBABILITY_PREFIX, MERGED_PREFIX)
            )
            assert (x, y) == (np.float32(mixed), np.float32(merged))
        rho = scipy.stats.spearmanr(points.x, points.y).statistic
        assert titles[j].endswith(f"Spearman {rho:.3f}")


def test_studies_without_the_other_proxy_have_no_such_figure(data: ReportData) -> None:
    assert "demix-proxies" not in figures(data)


def test_names_are_shown_as_they_are(both: tuple[optuna.Study, ReportData]) -> None:
    odd = replace(both[1], objectives=("a<b>", "x&y", "z"))
    titles = [a.text for a in plot_proxies(odd).layout.annotations]
    assert titles[0].startswith("a&lt;b&gt;<br>")
