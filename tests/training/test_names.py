"""Models whose names have slashes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.samples import Make, train

pytest.importorskip("torch")
pytest.importorskip("transformers")

NAMES = {"cc/web": "web", "cc/code_high": "code", "math": "math"}
CHANGES: dict[str, Any] = {
    "components": list(NAMES),
    "datasets": {name: {"files": [f"{file}.jsonl"]} for name, file in NAMES.items()},
    "general": {"dataset": "cc/web", "share": 0.25},
}


def test_models_with_slashes_are_trained_into_folders(make: Make) -> None:
    config = make(changes=CHANGES)
    models = train(config, references=1)
    assert list(models) == ["base", *NAMES, "references/0"]
    home = config.run_path / "models"
    for name in NAMES:
        assert models[name].path == home / name
        assert (home / name / "model.safetensors").is_file()
    made = sorted(str(p.parent.relative_to(home)) for p in home.rglob("config.json"))
    assert made == sorted(["base", *NAMES, "references/0"])
    assert all(model.skipped for model in train(config, references=1).values())
    again = train(config, only=["cc/web"], retrain=["cc/web"])
    assert {name: model.skipped for name, model in again.items()} == {"cc/web": False}


def test_a_lock_is_no_models_folder(make: Make) -> None:
    """The lock of ``a`` was the file ``a.lock``, where a model of that name has its folder."""
    names = ["code", "code.lock"]
    datasets = {name: {"files": ["code.jsonl"]} for name in names}
    config = make(changes={"components": names, "datasets": datasets, "general": None})
    assert list(train(config, only=["base", *names])) == ["base", *names]
