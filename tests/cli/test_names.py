"""A study whose names have slashes, through its commands."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from optuna_demix import Recommendation, recommend
from optuna_demix.cli import main
from optuna_demix.config import load_study_config
from optuna_demix.config.space import space_of
from optuna_demix.export import FORMATS
from tests.tiny_study import COMPONENTS, make_study, write_study

pytest.importorskip("torch")
NAMES = ("cc/web/prose", "cc/code", "math")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with four finished trials."""
    root = tmp_path_factory.mktemp("names") / "study"
    make_study(root)
    models = root / "run" / "models"
    for old, new in zip(COMPONENTS, NAMES, strict=True):
        (models / new).parent.mkdir(parents=True, exist_ok=True)
        (models / old).rename(models / new)
    write_study(
        root,
        components=list(NAMES),
        datasets={name: {"tokens": 10**6} for name in NAMES},
        mixture={"budget": 10**6, "max_epochs": 1, "upper": {"cc/code": 0.9}},
    )
    optuna.create_study(
        storage=f"sqlite:///{root / 'mix.db'}", study_name="mix", directions=["maximize"] * 2
    )
    assert _run(root, "worker", "--n-trials", "4", "--no-progress", "--no-dashboard") == 0
    return root


def _run(root: Path, command: str, *options: str) -> int:
    storage = [f"--storage=sqlite:///{root / 'mix.db'}", "--study-name=mix"]
    return main([command, str(root / "study.yaml"), *storage, *options])


def test_a_worker_evaluates_them(root: Path) -> None:
    study = optuna.load_study(storage=f"sqlite:///{root / 'mix.db'}", study_name="mix")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert all(set(trial.params) == set(NAMES) for trial in study.trials)


def test_check_and_recommend_name_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(root / "study.yaml"), "--no-tasks"]) == 0
    assert f"{Path('run', 'models', *NAMES[0].split('/'))} (found)" in capsys.readouterr().out
    assert _run(root, "recommend", "--json", "-") == 0
    mixtures = json.loads(capsys.readouterr().out)["mixtures"]
    assert set(mixtures["recommended"]["merge_weights"]) == set(NAMES)


@pytest.fixture(scope="module")
def recommended(root: Path) -> Recommendation:
    config = load_study_config(root / "study.yaml")
    study = optuna.load_study(storage=f"sqlite:///{root / 'mix.db'}", study_name="mix")
    return recommend(study, space_of(config))


@pytest.mark.parametrize("kind", sorted(k for k in FORMATS if not k.endswith("-epochs")))
def test_every_format_is_exported(
    root: Path,
    kind: str,
    recommended: Recommendation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    function = "optuna_demix.search.recommendation.recommend"
    monkeypatch.setattr(function, lambda study, space, **options: recommended)  # for all formats
    options = ["--mixture", "uniform", "--paths", "/data/{dataset}_text"]
    assert _run(root, "export", "--format", kind, *options) == 0
    assert "/data/cc/web/prose_text" in capsys.readouterr().out


def test_a_report_is_written_where_it_belongs(root: Path) -> None:
    pytest.importorskip("plotly")
    before = {path for path in root.parent.rglob("*") if path.is_dir()}
    assert _run(root, "report") == 0
    assert "cc/web/prose" in (root / "run" / "report" / "report.md").read_text()
    made = {path for path in root.parent.rglob("*") if path.is_dir()} - before
    assert made == {root / "run" / "report"}
