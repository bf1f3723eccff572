"""Which subfolders are components, which is the base, and what is said about the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from optuna_demix.errors import ComponentError, InputError
from optuna_demix.starting.checkpoints import find_checkpoints, open_set

pytest.importorskip("torch")


def models(root: Path) -> Path:
    return root / "run" / "models"


def _is_there(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def test_each_subfolder_is_a_component_and_base_the_base(tmp_path: Path) -> None:
    for name in ("web", "code", "Base", ".cache"):
        _is_there(tmp_path / name)
    (tmp_path / "logs").mkdir()
    (tmp_path / "README.md").touch()
    found = find_checkpoints(tmp_path)
    assert found.components == {"code": tmp_path / "code", "web": tmp_path / "web"}
    assert found.base == tmp_path / "Base"
    assert any("logs: it holds no checkpoint" in note for note in found.notes)


def test_a_base_that_is_named_is_no_component(tmp_path: Path) -> None:
    for name in ("web", "code", "start", "base"):
        _is_there(tmp_path / name)
    found = find_checkpoints(tmp_path, tmp_path / "web" / ".." / "start")
    assert set(found.components.values()) == {tmp_path / n for n in ("web", "code", "base")}
    assert "base" not in found.components  # is kept for the base: it is renamed, openly
    assert any("'base' is called base-2" in note for note in found.notes)


def test_the_last_of_a_trainers_checkpoints_stands_for_it(tmp_path: Path) -> None:
    _is_there(tmp_path / "web")
    for step in (500, 1000, 90):
        _is_there(tmp_path / "code" / f"checkpoint-{step}")
    (tmp_path / "code" / "checkpoint-2000").mkdir()  # cut short
    found = find_checkpoints(tmp_path)
    assert found.components["code"] == tmp_path / "code" / "checkpoint-1000"
    assert any("checkpoint-1000" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no components"),
        (("web", "base"), "holds 1 component, and a mixture needs two"),
    ],
)
def test_a_mixture_needs_two(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        _is_there(tmp_path / name)
    with pytest.raises(ComponentError, match=said):
        find_checkpoints(tmp_path)


def test_what_is_no_folder_of_components_is_refused(tmp_path: Path) -> None:
    _is_there(tmp_path / "web")
    with pytest.raises(ComponentError, match="is itself a checkpoint"):
        find_checkpoints(tmp_path / "web")
    with pytest.raises(InputError, match="no such folder"):
        find_checkpoints(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        find_checkpoints(tmp_path / "web" / "config.json")


def _change(folder: Path, file: str, **fields: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_components_that_end_texts_differently_follow_the_first(root: Path) -> None:
    found = find_checkpoints(models(root))
    assert open_set(found)[1] is None
    _change(models(root) / "math", "generation_config.json", eos_token_id=5)
    assert open_set(found)[1] == "code"


def test_a_base_of_another_model_is_refused(root: Path) -> None:
    shutil.copytree(models(root) / "math", models(root) / "base")
    _change(models(root) / "base", "config.json", rms_norm_eps=0.5)
    with pytest.raises(ComponentError, match="base: .*'rms_norm_eps' is 0.5"):
        open_set(find_checkpoints(models(root)))
