"""The device that scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optuna_demix.config import load_study_config, space_of
from optuna_demix.errors import InputError
from optuna_demix.study import build_objective
from optuna_demix.study.device import choose_device
from tests.tiny_study import make_study, write_study

torch = pytest.importorskip("torch")


@pytest.fixture
def n_devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """How many CUDA devices PyTorch sees."""
    n: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    return n


@pytest.mark.parametrize(
    ("n_devices", "given", "device_map", "chosen"),
    [
        (0, "auto", None, "cpu"),
        (2, "auto", None, "cuda"),
        (2, "auto", "auto", "auto"),
        (1, "auto", "auto", "cuda"),
        (0, "auto", "balanced", "cpu"),
        (2, "cuda:1", "balanced", "cuda:1"),
        (2, "auto", {"": 0, "lm_head": "cpu"}, {"": "cuda:0", "lm_head": "cpu"}),
        (2, "auto", "cuda:1", "cuda:1"),
        (2, "cpu", "cuda:1", "cpu"),
        (2, "cuda:0", "cpu", "cuda:0"),
    ],
    indirect=["n_devices"],
)
def test_the_command_line_comes_first_and_then_the_file(
    n_devices: int, given: str, device_map: Any, chosen: Any
) -> None:
    assert choose_device(given, device_map) == chosen


@pytest.mark.parametrize(
    ("n_devices", "given", "device_map", "said"),
    [
        (2, "gpu", None, "device 'gpu' is unknown; give auto, cpu, cuda or cuda:<number>"),
        (2, "cuda:", None, "device 'cuda:' is unknown"),
        (2, "cuda:x", None, "device 'cuda:x' is unknown"),
        (2, "cuda:2", None, "device 'cuda:2': the CUDA devices here are 0 to 1"),
        (0, "cuda", None, "device 'cuda': PyTorch sees no CUDA device here; give cpu"),
        (0, "auto", "cuda:0", "scoring.device_map 'cuda:0': PyTorch sees no CUDA device"),
        (2, "auto", {"": 0, "a": 2}, "scoring.device_map 'cuda:2': the CUDA devices here are 0"),
    ],
    indirect=["n_devices"],
)
def test_a_device_that_is_not_there_is_refused(
    n_devices: int, given: str, device_map: Any, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(given, device_map)
    assert str(caught.value).startswith(said)


def test_a_mixture_scores_on_several_devices_as_on_one(tmp_path: Path) -> None:
    scoring = {"include_path": "tasks", "batch_size": 4, "max_length": 32, "shared_prefixes": True}
    file = make_study(tmp_path, scoring=scoring)
    scores = []
    for device_map in (None, {"": "cpu", "model.layers.0.mlp": "cpu:1"}):
        write_study(tmp_path, scoring={**scoring, "device_map": device_map})
        config = load_study_config(file)
        objective, fingerprint = build_objective(config, space_of(config))
        assert fingerprint["scoring"]["device"] == "cpu"
        scores.append(objective.score([0.2, 0.3, 0.5]).benchmarks)
    assert len(objective.model._shards) == 2
    assert scores[0] == scores[1]
