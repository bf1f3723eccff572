"""What a person sees: a real dashboard in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna_dashboard import get_note, save_note

from optuna_demix import MixtureSpace
from optuna_demix.report import ReportData, figures, gather, write_note
from optuna_demix.report.dashboard import push
from tests.report.browsers import dashboard, fetch
from tests.report.studies import CAPABILITIES, COMPONENTS, make_study

pytestmark = pytest.mark.xdist_group("report")

PLOTS = "[id^='user-defined-plot:demix-']"
# Titles and labels, as boxes on the screen: [text, left, top, right, bottom].
TEXTS = """plot => [...plot.querySelectorAll('text')].map(text => {
  const box = text.getBoundingClientRect();
  return [text.textContent, box.left, box.top, box.right, box.bottom];
})"""


@pytest.fixture(scope="module", params=[60, pytest.param(2000, marks=pytest.mark.slow)])
def pushed(
    request: pytest.FixtureRequest, space: MixtureSpace, data: ReportData
) -> tuple[optuna.Study, ReportData]:
    storage = optuna.storages.InMemoryStorage()  # a database takes most of the time
    optuna.create_study(storage=storage)  # so that the other one is number 1, as in a database
    study = make_study(request.param, storage=storage, n_failed=3, space=space)
    shown = data if request.param == 60 else gather(study, space)
    push(study, figures(shown), write_note(shown))
    return study, shown


@pytest.fixture(scope="module")
def server(pushed: tuple[optuna.Study, ReportData]) -> Iterator[str]:
    with dashboard(pushed[0]._storage) as address:
        yield address


def test_the_study_page_shows_the_plots(
    tab: Any, pushed: tuple[optuna.Study, ReportData], server: str
) -> None:
    data = pushed[1]
    errors: list[str] = []
    tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"{server}/dashboard/studies/1")
    for name in figures(data):
        tab.wait_for_selector(f"[id='user-defined-plot:{name}'] .main-svg", timeout=120_000)
    # Arrays as the browser decoded them.
    drawn = tab.evaluate(
        "name => document.getElementById(name)._fullData.map("
        "t => ({name: t.name, x: Array.from(t.x || t.a), y: Array.from(t.y || t.b)}))",
        "user-defined-plot:demix-convergence",
    )
    texts = [plot.evaluate(TEXTS) for plot in tab.query_selector_all(PLOTS)]
    boxes = [plot.bounding_box() for plot in tab.query_selector_all(PLOTS)]
    layers = tab.query_selector_all(".ternarylayer .scatterlayer .point")
    _keep_screenshots(tab, len(data.numbers))
    assert errors == []
    points = next(trace for trace in drawn if trace["name"] == "trial")
    merit = dict(zip(data.numbers.tolist(), data.composite.tolist(), strict=True))
    assert len(points["x"]) == min(500, len(merit))
    np.testing.assert_allclose(points["y"], [merit[n] for n in points["x"]], rtol=1e-6)
    assert len(layers) > 50
    assert len(texts) == len(figures(data))
    for labels, box in zip(texts, boxes, strict=True):
        assert labels and _overlaps(labels) == []
        assert _outside(labels, box) == []


@pytest.mark.slow
def test_the_note_is_read_with_its_tables(
    tab: Any, pushed: tuple[optuna.Study, ReportData], server: str
) -> None:
    data = pushed[1]
    tab.goto(f"{server}/dashboard/studies/1/note")
    tab.wait_for_selector("table", timeout=120_000)
    rows = tab.evaluate(
        "[...document.querySelectorAll('table')].map(t => [...t.rows].map("
        "r => [...r.cells].map(c => c.textContent.trim())))"
    )
    shown = tab.inner_text("main, #dashboard, body")
    _keep_screenshots(tab, len(data.numbers), "note")
    shares, scores, best, trust = rows
    for name, *cells in shares[1:]:
        assert cells[0] == f"{100 * data.recommendation.merge_weights[name]:.1f} %"
        assert cells[2] == f"{100 * data.recommendation.data_shares[name]:.1f} %"
    assert [row[0] for row in shares[1:]] == list(COMPONENTS)
    assert scores[0][1:-1] == list(CAPABILITIES)
    assert [row[0] for row in best[1:]] == [
        f"trial {data.numbers[i]}" for i in data.best_first()[:10]
    ]
    assert [row[0] for row in trust[1:-1]] == list(data.effects.benchmarks)
    assert "optuna-demix" not in shown  # our marks are not to be seen


def test_trials_can_be_sorted_by_what_was_predicted(
    pushed: tuple[optuna.Study, ReportData], server: str
) -> None:
    detail = json.loads(fetch(f"{server}/api/studies/1?after=0"))
    sortable = {attr["key"]: attr["sortable"] for attr in detail["union_user_attrs"]}
    for name, benchmarks in CAPABILITIES.items():
        assert sortable[f"predicted:{name}"] and sortable[f"predicted_std:{name}"]
        assert all(sortable[f"score:{benchmark}"] for benchmark in benchmarks)
    assert sortable["violation"]
    assert detail["objective_names"] == list(CAPABILITIES)


def test_a_second_report_replaces_the_first(data: ReportData, tmp_path: Path) -> None:
    study = make_study(2, storage=f"sqlite:///{tmp_path / 'mix.db'}")
    save_note(study, "Stop on Friday. Ada")
    drawn = figures(data)
    push(study, drawn, "a long note " * 1000)
    push(study, dict(list(drawn.items())[:1]), "a short note")
    assert get_note(study).startswith("Stop on Friday. Ada") and "long" not in get_note(study)
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    stored = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert set(stored) == set(drawn)
    for name, text in stored.items():
        assert json.loads(text) == json.loads(drawn[name].to_json())


def _overlaps(labels: list[list[Any]]) -> list[tuple[str, str]]:
    """Pairs of labels that lie over each other by more than two pixels."""
    found = []
    for i, (first, *a) in enumerate(labels):
        for second, *b in labels[i + 1 :]:
            width = min(a[2], b[2]) - max(a[0], b[0])
            height = min(a[3], b[3]) - max(a[1], b[1])
            # Slanted labels have larger boxes than letters: neighbors on one axis may touch.
            slanted = abs(a[1] - b[1]) < 1 and a[3] - a[1] > 25
            if first and second and width > 2 and height > 2 and not slanted:
                found.append((first, second))
    return found


def _outside(labels: list[list[Any]], box: dict[str, float]) -> list[str]:
    """Labels that leave their plot by more than two pixels."""
    left, top = box["x"] - 2, box["y"] - 2
    right, bottom = left + box["width"] + 4, top + box["height"] + 4
    return [
        text
        for text, x0, y0, x1, y1 in labels
        if text and (x0 < left or y0 < top or x1 > right or y1 > bottom)
    ]


def _keep_screenshots(tab: Any, n_trials: int, what: str = "study") -> None:
    """Keep what the browser shows where ``SCREENSHOTS`` names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        tab.screenshot(path=Path(folder) / f"{what}-{n_trials}.png", full_page=True)
