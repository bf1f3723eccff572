"""What `check --components` finds in components that another trainer has made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix._progress import Report
from optuna_demix.cli._main import main
from optuna_demix.config import StudyConfig, load_study_config
from optuna_demix.errors import ComponentError
from optuna_demix.training.returned import check_returned, study_lines
from tests.tiny_study import COMPONENTS, make_study

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TRAINING = {
    "tokenizer": "tokenizer",
    "sequence_length": 8,
    "batch_size": 4,
    "component": {"tokens": 9 * 32, "learning_rate": 0.001},
}


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three components that have drifted a little from it; copy it."""
    root = tmp_path_factory.mktemp("returned") / "study"
    make_study(root, base="run/models/base", training=TRAINING)
    models = root / "run" / "models"
    shutil.copytree(models / COMPONENTS[0], models / "base")
    for number, name in enumerate(COMPONENTS, 1):
        change(models / "base", models / name, lambda x, n=number: x * (1.0 + 0.02 * n))
    return root


def change(source: Path, target: Path, edit: Callable[[Any], Any]) -> None:
    """Save a model with each of its tensors changed."""
    from safetensors.torch import load_file, save_file

    tensors = {n: edit(x) for n, x in load_file(source / "model.safetensors").items()}
    shutil.copytree(source, target, dirs_exist_ok=True)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def study(returned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(returned, tmp_path / "study")) / "study.yaml"


def models(study: Path) -> Path:
    return study.parent / "run" / "models"


def checked(study: Path) -> Any:
    return check_returned(load_study_config(study), report=Report())


def test_what_came_back_as_planned_is_told(study: Path) -> None:
    (models(study) / "code" / "trainer_state.json").write_text('{"global_step": 9}')
    found = checked(study)
    assert [one.name for one in found] == list(COMPONENTS)
    # |1 + a - 1| / (1 + a + 1) for weights that are all (1 + a) times the base's.
    drifts = [0.02 * n / (2.0 + 0.02 * n) for n in (1, 2, 3)]
    assert [one.drift for one in found] == pytest.approx(drifts, rel=1e-3)
    assert [one.steps for one in found] == [None, 9, None]
    assert not any(one.bends for one in found)


def test_the_lines_name_them(study: Path) -> None:
    config: StudyConfig = load_study_config(study)
    content = yaml.safe_load(study_lines(config))
    assert content["base"] == "run/models/base"
    assert content["components"]["math"] == {"path": "run/models/math"}
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), **content}))
    assert len(checked(study)) == 3  # they can be put in as they are


def test_a_large_drift_is_doubted(study: Path) -> None:
    change(models(study) / "base", models(study) / "code", lambda x: x * 1.2)
    assert [one.bends for one in checked(study)] == [False, True, False]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: shutil.rmtree(m / "code"), "components.code: no directory"),
        (
            lambda m: change(m / "base", m / "code", lambda x: x),
            "'code' has the weights of the base",
        ),
        (
            lambda m: change(m / "prose", m / "code", lambda x: x),
            "'code' has the weights of 'prose'",
        ),
        (
            lambda m: change(m / "base", m / "code", lambda x: -x),
            "'code' has drifted 1.000 from the base",
        ),
        (
            lambda m: change(m / "base", m / "code", lambda x: x * float("nan")),
            "'code'.* holds NaN or infinity",
        ),
        (
            lambda m: (m / "code" / "trainer_state.json").write_text('{"global_step": 7}'),
            "'code' was trained for 7 steps, planned are 9",
        ),
        (
            lambda m: (m / "code" / "training.json").write_text(
                json.dumps({"format": 1, "steps": 9, "tokens": 100})
            ),
            "'code' was trained for 100 tokens, planned are 288",
        ),
        (
            lambda m: _edit_config(m / "code", hidden_act="gelu"),
            "'code'",
        ),
    ],
    ids=["missing", "untrained", "twice", "far", "nan", "steps", "tokens", "architecture"],
)
def test_a_wrong_component_is_named(
    damage: Callable[[Path], object],
    message: str,
    study: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(models(study))
    with pytest.raises(ComponentError, match=message) as caught:
        checked(study)
    assert "\n" not in str(caught.value)
    assert main(["check", str(study), "--components", "--no-tasks"]) == 2
    assert "code" in capsys.readouterr().err.splitlines()[-1]


def _edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_without_a_base_weights_are_read_all_the_same(study: Path) -> None:
    shutil.rmtree(models(study) / "base")
    assert [one.drift for one in checked(study)] == [None] * 3
    change(models(study) / "prose", models(study) / "code", lambda x: x / 0.0)
    with pytest.raises(ComponentError, match=r"'code'.* holds NaN or infinity"):
        checked(study)


def test_the_command_prints_them(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(study), "--components", "--no-tasks"]) == 0
    said = capsys.readouterr()
    assert "math: drift 0.029 from the base, all weights finite" in said.out
    assert "    path: run/models/math\n" in said.out
