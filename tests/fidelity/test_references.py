from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.errors import ConfigError
from optuna_demix.fidelity import find_references
from optuna_demix.mixture import MixtureSpace

SPACE = MixtureSpace(
    ["general", "code", "math"],
    composition={
        "general": {"general": 1.0},
        "code": {"general": 0.5, "code": 0.5},
        "math": {"general": 0.5, "math": 0.5},
    },
)


def shares(i: int) -> dict[str, float]:
    return {"general": 0.5 + 0.05 * i, "code": 0.25 - 0.025 * i, "math": 0.25 - 0.025 * i}


def write(folder: Path, name: str, record: dict[str, Any] | None = None) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    if record is not None:
        (path / "training.json").write_text(json.dumps(record))
    return path


def record(mixture: dict[str, float], weights: dict[str, float] | None = None) -> dict[str, Any]:
    return {
        "data": {name: {"share_asked": share, "share": share} for name, share in mixture.items()},
        "merge_weights": weights,
        "recipe": {"base": "abc"},
        "tokens": 1000,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        write(tmp_path, str(i), record(shares(i)))
    return tmp_path


def test_merge_weights_follow_from_data_shares(folder: Path) -> None:
    found = find_references(folder, SPACE)
    assert [reference.name for reference in found] == [str(i) for i in range(10)]
    for i, reference in enumerate(found):
        assert reference.shares == pytest.approx(shares(i))
        assert sum(reference.weights.values()) == pytest.approx(1.0)
        w = np.array([reference.weights[name] for name in SPACE.components])
        assert SPACE.data_shares(w) == pytest.approx(list(shares(i).values()), abs=1e-6)


def test_recorded_merge_weights_are_used_where_they_give_the_shares(folder: Path) -> None:
    weights = {"general": 0.2, "code": 0.5, "math": 0.3}
    mixture = {"general": 0.6, "code": 0.25, "math": 0.15}
    write(folder, "10", record(mixture, weights))
    write(folder, "11", record(mixture, {"general": 1.0, "code": 0.0, "math": 0.0}))  # stale
    found = find_references(folder, SPACE)
    assert found[10].weights == pytest.approx(weights)
    assert found[11].weights == pytest.approx(weights, abs=1e-6)


def test_models_of_another_trainer_are_told_by_one_file(tmp_path: Path) -> None:
    mixtures: dict[str, Any] = {}
    for i in range(8):
        write(tmp_path, f"mix_{i}")
        mixtures[f"mix_{i}"] = shares(i)
    mixtures["mix_7"] = {"merge_weights": {"code": 1.0}}
    (tmp_path / "mixtures.json").write_text(json.dumps(mixtures))
    found = find_references(tmp_path, SPACE)
    assert found[3].shares == pytest.approx(shares(3)) and found[3].tokens is None
    assert found[7].shares == pytest.approx({"general": 0.5, "code": 0.5, "math": 0.0})


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ({"general": 1278, "code": 284, "math": 69}, "sum to 1631, not to 1"),
        ({"general": 0.5, "code": 0.2, "math": 0.2}, "sum to 0.9, not to 1"),
        ({"general": 0.5, "web": 0.5}, "no dataset 'web'"),
        ({"general": 1.5, "code": -0.5}, "must be a number from 0 to 1, got -0.5"),
        ({"general": "half", "code": 0.5}, "got 'half'"),
        ({"general": 0.2, "code": 0.8}, "of 'code' it has 0.8000, the nearest proxy"),
        ({"merge_weights": {"code": 0.5, "web": 0.5}}, "no component 'web'"),
    ],
)
def test_a_mixture_that_cannot_be_used_is_named(
    folder: Path, mixture: dict[str, Any], said: str
) -> None:
    (folder / "mixtures.json").write_text(json.dumps({"4": mixture}))
    with pytest.raises(ConfigError, match=said) as error:
        find_references(folder, SPACE)
    assert "mixtures.json: '4'" in str(error.value) and "\n" not in str(error.value)


def test_damaged_or_missing_facts_are_named(folder: Path) -> None:
    (folder / "3" / "training.json").write_text('{"data": 1}')
    with pytest.raises(ConfigError, match="3/training.json: was not written by"):
        find_references(folder, SPACE)
    (folder / "3" / "training.json").unlink()
    with pytest.raises(ConfigError, match="3: its mixture is not known; write it into"):
        find_references(folder, SPACE)
    (folder / "3" / "config.json").unlink()  # no model any more: one reference less
    assert len(find_references(folder, SPACE)) == 9
    (folder / "mixtures.json").write_text(json.dumps({"3": shares(3)}))
    with pytest.raises(ConfigError, match="'3': there is no model"):
        find_references(folder, SPACE)


def test_too_few_references_are_refused(tmp_path: Path) -> None:
    for i in range(7):
        write(tmp_path, str(i), record(shares(i)))
    with pytest.raises(ConfigError, match="7 reference models are too few"):
        find_references(tmp_path, SPACE)
    with pytest.raises(ConfigError, match="is no directory"):
        find_references(tmp_path / "nowhere", SPACE)
