"""``optuna-demix demo``: its steps, in their order, until one of them fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix import quickstart
from optuna_demix.cli import _main, main


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the demo runs; ``STATUS`` in the environment is not theirs but ours."""
    calls: list[list[str]] = []
    build = _main.build_parser

    class Parser:
        def parse_args(self, words: list[str]) -> Any:
            arguments = build().parse_args(words)
            if words[0] != "demo":
                arguments.run = lambda _: calls.append(list(words)) or statuses.get(words[0], 0)
            return arguments

    monkeypatch.setattr(_main, "build_parser", Parser)
    monkeypatch.chdir(tmp_path)

    def prepare(folder: Path, report: Any) -> Path:
        folder.mkdir()
        file = folder / "study.yaml"
        file.write_text(quickstart.STUDY_FILE.read_text())
        return file

    monkeypatch.setattr(quickstart, "prepare", prepare)
    statuses.clear()
    return calls


statuses: dict[str, int] = {}


def test_it_trains_works_and_recommends(
    steps: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", "d", "--n-trials", "7", "--device", "cuda:1"]) == 0
    train, worker, recommend = steps
    assert train == ["train", "d/study.yaml", "--device", "cuda"]
    assert worker[:2] == ["worker", "d/study.yaml"]
    assert " ".join(worker).endswith("--n-trials 7 --n-workers 2 --device cuda:1")
    assert recommend[-4:] == ["--json", "d/summary.json", "--device", "cuda:1"]
    study = optuna.load_study(study_name="quickstart", storage="sqlite:///d/study.db")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"] * 3
    shown = capsys.readouterr().out
    assert "$ optuna-demix train d/study.yaml" in shown
    assert "$ optuna create-study --storage sqlite:///d/study.db" in shown


@pytest.mark.parametrize(("failing", "done"), [("train", 1), ("worker", 2), ("recommend", 3)])
def test_a_step_that_fails_is_the_last(
    steps: list[list[str]], failing: str, done: int, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses[failing] = 130
    assert main(["demo"]) == 130
    assert len(steps) == done
    assert "the same command goes on where this one stopped" in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    assert main(["demo", "--out", str(tmp_path / "d")]) == 2
    assert "the demo needs torch; pip install 'optuna-demix[models]'" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_folder_that_is_a_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("optuna-demix: error: --out") and shown.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
