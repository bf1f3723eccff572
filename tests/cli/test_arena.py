"""``optuna-demix arena``: the file of a study's components, from the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from optuna_demix.cli import main
from tests.tiny_study import write_study


@pytest.fixture
def root(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    return root


def _arena(action: str, *extra: str) -> int:
    return main(["arena", action, "study.yaml", *extra])


def test_an_arena_is_built_shown_verified_and_cleared(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _arena("build") == 0
    built = capsys.readouterr()
    assert built.err.endswith("next: optuna-demix check study.yaml\n") and "\r" not in built.err
    assert (
        built.out.startswith("run/components.arena: ") and "arena of 3 components\n" in built.err
    )
    assert _arena("info") == 0
    shown = capsys.readouterr().out
    assert "3 components: prose, code, math" in shown and shown.endswith("up to date\n")
    assert _arena("verify") == 0
    assert "blocks are as built" in capsys.readouterr().out
    assert _arena("clear") == 0
    assert "GB freed" in capsys.readouterr().out
    assert not (root / "run" / "components.arena").exists()
    assert _arena("clear") == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_damage_is_one_line_and_status_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _arena("build", "--no-progress") == 0
    file = root / "run" / "components.arena"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert _arena("verify", "--no-progress") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and "of component 'math' is damaged" in said.err


def test_a_stale_arena_says_why(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _arena("build") == 0
    models = root / "run" / "models"
    shutil.copy(models / "prose" / "model.safetensors", models / "code" / "model.safetensors")
    os.utime(models / "code" / "model.safetensors")
    assert _arena("info") == 0
    assert "stale: component 'code' has changed" in capsys.readouterr().out


def test_an_arena_outlives_its_components(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _arena("build") == 0
    shutil.rmtree(root / "run" / "models")
    assert _arena("info") == 0
    assert "cannot be compared with the study's components" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["info", "verify"])
def test_an_arena_that_is_not_there_is_said(
    root: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert _arena(action) == 2
    assert "there is no arena at" in capsys.readouterr().err


class TestMethods:
    def test_a_method_that_needs_the_base_uses_the_studys(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        merging = {"method": "ties", "parameters": {"density": 0.5}}
        write_study(root, merging=merging, base="run/models/prose")
        assert _arena("build") == 0
        assert _arena("info") == 0
        shown = capsys.readouterr().out
        assert "3 components and their base: prose, code, math" in shown
        assert "sparsified by magnitude, density 0.5" in shown

    def test_a_base_that_is_not_there_is_named(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_study(root, merging={"method": "task_arithmetic"})
        assert _arena("build") == 2
        said = capsys.readouterr().err
        assert "base: no directory" in said and "'task_arithmetic' needs the base" in said

    @pytest.mark.parametrize(
        ("merging", "said"),
        [
            ({"method": "tise"}, "merging: unknown merge method 'tise'; did you mean 'ties'?"),
            ({"method": "ties"}, "merging: merge method 'ties' needs the parameter 'density'"),
            (
                {"method": "ties", "parameters": {"density": 2}},
                "'density' must be above 0 and at most 1, got 2",
            ),
            (
                {"method": "ties", "parameters": {"density": "half"}},
                "merging.parameters.density",
            ),
        ],
    )
    def test_a_bad_method_is_named_before_anything_is_done(
        self, root: Path, capsys: pytest.CaptureFixture[str], merging: dict, said: str
    ) -> None:
        write_study(root, merging=merging)
        assert _arena("build") == 2
        error = capsys.readouterr().err
        assert said in error and "study.yaml" in error and error.count("\n") == 1
