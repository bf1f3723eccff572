"""How far components are from their base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import ComponentSet, drift


def _flat(path: Path) -> torch.Tensor:
    state: dict[str, torch.Tensor] = {}
    for file in path.glob("*.safetensors"):
        state.update(load_file(file))
    return torch.cat([state[name].double().view(-1) for name in sorted(state)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_drift_is_the_relative_distance(
    family_of: Callable[..., Any],
    dtype: torch.dtype,
    sharded: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "optuna_demix.merging.checkpoints.drift._CHUNK_ELEMENTS", 100
    )  # many chunks a tensor
    paths = dict(family_of("gpt2", dtype, sharded).paths)
    base = paths["web"]
    moved = drift(ComponentSet.open(paths, base=base))
    assert moved["web"] == 0.0
    for name in ("code", "math"):
        trained, untrained = _flat(paths[name]), _flat(base)
        expected = (trained - untrained).norm() / (trained.norm() + untrained.norm())
        assert moved[name] == pytest.approx(float(expected), rel=1e-9)


def test_the_opposite_of_the_base_is_at_distance_one(paths: dict[str, Path]) -> None:
    state = load_file(paths["web"] / "model.safetensors")
    save_file({name: -t for name, t in state.items()}, paths["code"] / "model.safetensors")
    assert drift(ComponentSet.open(paths, base=paths["web"]))["code"] == pytest.approx(1.0)


def test_without_a_base_there_is_no_drift(paths: dict[str, Path]) -> None:
    with pytest.raises(ComponentError, match="open the components with base=PATH"):
        drift(ComponentSet.open(paths))


def test_a_non_finite_number_is_named(paths: dict[str, Path]) -> None:
    state = load_file(paths["code"] / "model.safetensors")
    state["model.norm.weight"][0] = torch.nan
    save_file(state, paths["code"] / "model.safetensors")
    with pytest.raises(ComponentError, match="component 'code': .*'model.norm.weight' holds NaN"):
        drift(ComponentSet.open(paths, base=paths["web"]))
