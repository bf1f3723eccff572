from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, figures, gather, write_note
from optuna_demix.report.files import write_files
from optuna_demix.report.page import build_page
from optuna_demix.report.plots.style import MOST_POINTS
from tests.report.studies import COMPONENTS

pytestmark = pytest.mark.xdist_group("report")


def repeated(data: ReportData, n: int) -> ReportData:
    """The same study, its trials repeated until there are n of them."""
    rows = np.resize(np.arange(len(data.numbers)), n)
    arrays = ("weights", "values", "merit", "proposed", "proposed_std", "held_out", "held_out_std")
    arrays += ("merged", "probability")
    return replace(
        data, numbers=np.arange(n), **{name: getattr(data, name)[rows] for name in arrays}
    )


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_few_components_have_a_map_as_well(n_components: int) -> None:
    space = MixtureSpace(COMPONENTS[:n_components])
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    for w in space.sample(12, rng):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(space.param_names, w.tolist(), strict=True)),
                distributions=space.distributions(),
                value=float(-((w[0] - 0.5) ** 2)),
            )
        )
    drawn = figures(gather(study, space))
    points = drawn["demix-mixture-map"].data[0]
    assert len(points.a if n_components == 3 else points.x) == 12
    # Every component was trained on its own dataset alone: one panel says it all.
    assert {bar.xaxis for bar in drawn["demix-best-mixtures"].data} == {"x"}
    assert drawn["demix-predictions"].layout.annotations[0].text == "value"


def test_long_studies_are_thinned_and_say_so(data: ReportData) -> None:
    long = repeated(data, 2000)
    drawn = figures(long)
    points = drawn["demix-convergence"].data[0]
    assert len(points.x) <= MOST_POINTS
    best = set(np.argsort(-long.merit, kind="stable")[:200].tolist())
    assert best <= set(points.x.tolist())
    assert points.x.min() < 50 and points.x.max() > 1950
    assert "of 2,000 trials" in drawn["demix-convergence"].layout.title.subtitle.text
    assert sum(len(figure.to_json()) for figure in drawn.values()) < 200_000


def test_short_studies_show_every_trial(data: ReportData) -> None:
    drawn = figures(data)
    assert all("shown" not in figure.layout.title.subtitle.text for figure in drawn.values())
    for figure in drawn.values():
        json.loads(figure.to_json())


def test_names_with_slashes_make_no_folders(tmp_path: Path) -> None:
    space = MixtureSpace(["dolma3_cc/health_high", "../code"])
    study = optuna.create_study(direction="maximize", study_name="team/mix")
    for w in space.sample(6, np.random.default_rng(0)):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(space.param_names, w.tolist(), strict=True)),
                distributions=space.distributions(),
                value=float(w[0]),
            )
        )
    data = gather(study, space)
    drawn, note = figures(data), write_note(data)
    assert not any("/" in identifier for identifier in drawn)
    write_files(tmp_path / "out", build_page(data, title=study.study_name), note)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert all(path.is_file() for path in (tmp_path / "out").iterdir())
    assert "dolma3_cc/health_high" in (tmp_path / "out" / "report.md").read_text().replace(
        "\\", ""
    )
