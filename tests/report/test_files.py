"""``optuna-demix report`` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna_dashboard import get_note

from optuna_demix.attributes import REPORT_CLAIM_PREFIX
from optuna_demix.cli import main
from optuna_demix.errors import DemixError
from optuna_demix.report import ReportData
from optuna_demix.report._schedule import ReportSchedule
from optuna_demix.report.files import write_files
from optuna_demix.report.page import build_page
from tests.report.studies import CAPABILITIES, COMPONENTS, make_study

pytestmark = pytest.mark.xdist_group("report")


def study_yaml(folder: Path, **changes: Any) -> str:
    study = {
        "components": list(COMPONENTS),
        "mixture": {"name": ""},  # a capability is named as a component
        "general": {"dataset": "general", "share": 0.5},
        "capabilities": {
            capability: [
                {"task": name.split("/")[0], "metric": name.split("/")[1]} for name in names
            ]
            for capability, names in CAPABILITIES.items()
        },
        **changes,
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return str(file)


@pytest.fixture
def shared(tmp_path: Path) -> optuna.Study:
    return make_study(6, storage=f"sqlite:///{tmp_path / 'mix.db'}")


def report(tmp_path: Path, *extra: str, **changes: Any) -> int:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    file = study_yaml(tmp_path, **changes)
    return main(["report", file, "--storage", url, "--study-name", "demix", *extra])


def test_it_writes_one_page_and_one_note(
    shared: optuna.Study,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optuna_demix.report.dashboard.is_available", lambda: False)  # not needed
    assert report(tmp_path) == 0  # to run_dir/report, where nothing else is said
    folder = tmp_path / "run" / "report"
    assert sorted(f.name for f in folder.iterdir()) == ["report.html", "report.md"]
    content = (folder / "report.html").read_text()
    assert content.index("Recommended mixture") < content.index("What if?")
    assert not re.search(r'(src|href)="(?!#)', content) and len(content) < 1_500_000
    assert "merged models" in content or "token probabilities" in content
    assert "## Recommended data mixture" in (folder / "report.md").read_text()
    assert "report.html" in capsys.readouterr().err
    assert get_note(shared) == "" and _claims(shared) == []


def test_it_shows_itself_in_the_dashboard_on_request(shared: optuna.Study, tmp_path: Path) -> None:
    assert report(tmp_path, "--dashboard", "--out", str(tmp_path / "out")) == 0
    assert "## Recommended data mixture" in get_note(shared)
    assert (tmp_path / "out" / "report.md").read_text().strip() in get_note(shared)
    assert _claims(shared) == [None]  # released


def test_a_worker_that_is_writing_is_not_disturbed(
    shared: optuna.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ReportSchedule(shared).claimed():
        assert report(tmp_path, "--dashboard", "--out", str(tmp_path / "out")) == 2
    assert "a worker is just writing" in capsys.readouterr().err
    assert get_note(shared) == "" and not (tmp_path / "out").exists()


def test_too_few_trials_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(1, storage=f"sqlite:///{tmp_path / 'mix.db'}")
    assert report(tmp_path, "--out", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "1 finished trial" in said.splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(
    shared: optuna.Study,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optuna_demix.report.dashboard.is_available", lambda: False)
    assert report(tmp_path, "--dashboard") == 2
    assert "pip install 'optuna-demix[dashboard]'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_leaves_nothing(data: ReportData, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DemixError, match="taken: cannot be written"):
        write_files(tmp_path / "taken", build_page(data, title="t"), "note")
    assert [f.name for f in tmp_path.iterdir()] == ["taken"]


def test_the_page_needs_no_network(tab: Any, data: ReportData, tmp_path: Path) -> None:
    write_files(tmp_path, build_page(data, title="a <study> & more"), "note")
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("#what-if .panel:not([hidden])")
    tab.wait_for_selector("figure[data-chart=convergence] svg")
    heading = tab.inner_text("h1")
    drawn = tab.locator("figure[data-chart=convergence] circle").count()
    assert heading == "a <study> & more"
    assert all(url.startswith(("file://", "blob:", "data:")) for url in asked)
    assert drawn == len(data.numbers) + 1  # one in the legend


def _claims(study: optuna.Study) -> list[Any]:
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert json.dumps(attrs)
    return [value for key, value in attrs.items() if key.startswith(REPORT_CLAIM_PREFIX)]
