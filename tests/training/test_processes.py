from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.training._record import read_record
from tests.training.samples import Make, train

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

SCRIPT = """
import os, signal, sys
from optuna_demix.config import load_study_config
from optuna_demix.training import train_study
from optuna_demix.training._pilot import Pilot

step = Pilot.step

def killed(self, number, control):
    if os.environ["RANK"] == "1" and number == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, number, control)

Pilot.step = killed
train_study(load_study_config(sys.argv[1]), device="cpu", progress=False, only=["base", "code"])
"""

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Train on two processes; with ``kill_at`` the second one dies at that step."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]

    def run(config: StudyConfig, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*torchrun, "--nproc-per-node=2", str(script), str(config.source), str(kill_at)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


def compare(ours: Path, theirs: Path) -> None:
    from safetensors.numpy import load_file

    expected, found = (load_file(path / "model.safetensors") for path in (ours, theirs))
    assert expected.keys() == found.keys()
    for tensor, values in expected.items():
        np.testing.assert_allclose(found[tensor], values, atol=1e-6)
    assert (theirs / "config.json").read_text() == (ours / "config.json").read_text()


def test_two_processes_train_the_same_model(make: Make, launch: Launch) -> None:
    """Under torchrun the global batches are the same, so the weights agree to rounding."""
    single = train(make("single"), only=["base", "code"])
    config = make("double")
    done = launch(config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("code: 9 steps") == 1  # one process speaks
    for name, model in single.items():
        compare(model.path, config.run_path / "models" / name)


@pytest.mark.parametrize("checkpoints", ["sharded", "full"])
def test_sharded_processes_train_the_same_model_through_sigkill(
    make: Make, launch: Launch, checkpoints: str
) -> None:
    changes: dict[str, Any] = {
        "training.model.num_hidden_layers": 2,
        "training.model.tie_word_embeddings": checkpoints == "full",
        "training.base.schedule": "wsd",
        "training.base.decay_ratio": 0.6,
        "training.base.average": 3,
    }
    single = train(make("single", changes), only=["base", "code"])
    sharded = {
        "training.sharding": "full",
        "training.checkpoints": checkpoints,
        "training.gradient_checkpointing": True,
    }
    config = make("sharded", {**changes, **sharded})
    assert launch(config, kill_at=8).returncode != 0
    assert not config.base_path.exists()
    shards = (config.run_path / "models" / ".partial" / "base" / "checkpoint-6").glob("*/*.distcp")
    assert len(list(shards)) == (4 if checkpoints == "sharded" else 0)
    done = launch(config)
    assert done.returncode == 0, done.stderr
    assert "base: training 320 tokens in 10 steps, resuming after step 6" in done.stdout
    for name, model in single.items():
        compare(model.path, config.run_path / "models" / name)
    trained = read_record(config.base_path)
    assert trained is not None
    assert (trained["sharding"], trained["averaged_steps"]) == ("full", [6, 8, 10])
