"""Training on CUDA devices beside training on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.training import train_study
from tests.training.samples import Make, train

torch = pytest.importorskip("torch")

LEAN = {"training.gradient_checkpointing": True, "training.compile": True}
AVERAGE = {"training.base.schedule": "wsd", "training.base.average": 2}


def farthest(ours: Path, theirs: Path) -> float:
    from safetensors.numpy import load_file

    expected, found = (load_file(path / "model.safetensors") for path in (ours, theirs))
    assert expected.keys() == found.keys()
    return float(max(np.abs(found[name] - values).max() for name, values in expected.items()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("bf16", "far"), [(False, 5e-3), (True, 0.02)])
def test_a_model_trains_on_cuda_as_on_the_cpu(make: Make, bf16: bool, far: float) -> None:
    expected = train(make("cpu", AVERAGE), only=["base"])["base"]
    config = make("cuda", {**LEAN, **AVERAGE, "training.bf16": bf16})
    (found,) = train_study(config, only=["base"], device="cuda", progress=False)
    assert farthest(expected.path, found.path) < far


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("checkpoints", ["sharded", "full"])
def test_sharded_devices_train_the_same_model(make: Make, checkpoints: str) -> None:
    expected = train(make("cpu", AVERAGE))
    sharded = {"training.sharding": "full", "training.checkpoints": checkpoints}
    config: StudyConfig = make("cuda", {**LEAN, **AVERAGE, **sharded})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "optuna_demix", "train", str(config.source), "--device", "cuda"]
    done = subprocess.run(
        [*launch, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name, model in expected.items():
        assert farthest(model.path, config.run_path / "models" / name) < 5e-3  # TF32
