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
    arrays = ("weights", "values", "composite", "merit", "proposed", "proposed_std")
    arrays += ("held_out", "held_out_std", "merged", "probability")
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


def test_figures_show_on_light_and_on_dark_cards(data: ReportData) -> None:
    """The dashboard draws them as they are: nothing is painted behind, nothing is near-black."""
    for figure in figures(data).values():
        layout = figure.layout
        assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert layout.ternary.bgcolor in (None, "rgba(0,0,0,0)")
        for card in ("#ffffff", "#121212", "#1e1e1e"):
            for color in (layout.font.color, layout.title.subtitle.font.color):
                assert contrast(color, card) > 3.0
            assert contrast(layout.font.color, card) > 4.0


def contrast(one: str, other: str) -> float:
    """Ratio of two colors as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
