"""Several launches of torchrun, or tasks of Ray, that share the models of a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.training import TrainedModel
from tests.training.samples import Make, train

torch = pytest.importorskip("torch")
LAUNCH = Path(__file__).parents[2] / "studies" / "_launch"


TRAIN = """
import os, sys
from optuna_demix.config import load_study_config
from optuna_demix.training import train_study

train_study(load_study_config(sys.argv[1]), device="cpu", progress=False)
"""

ROBBED = """
from pathlib import Path
from optuna_demix.training import _turns
from optuna_demix.training._pilot import Pilot

step = Pilot.step

def robbed(self, number, control):
    if number == 5 and os.environ["RANK"] == "0" and self._run.name == "base":
        Pilot.step = step
        (held,) = self._job.lease("base").iterdir()
        os.utime(held.rename(held.with_name("elsewhere 0 7,0123456789abcdef,0")), (0, 0))
    step(self, number, control)

Pilot.step = robbed
_turns.POLL_S = 0.01
"""


def launch(config: StudyConfig, before: str = "") -> subprocess.Popen[str]:
    """Start two processes that train together."""
    script = config.source.parent / "train.py"
    first, rest = TRAIN.split("\n\n")
    script.write_text(f"{first}\n{before}\n{rest}")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, str(script), str(config.source)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def assert_same(config: StudyConfig, models: Mapping[str, TrainedModel]) -> None:
    """Global batches are the same, so weights agree to rounding."""
    from safetensors.numpy import load_file

    for name, model in models.items():
        ours = load_file(model.path / "model.safetensors")
        theirs = load_file(config.run_path / "models" / name / "model.safetensors")
        for tensor, values in ours.items():
            np.testing.assert_allclose(theirs[tensor], values, atol=1e-6)


@pytest.mark.slow
def test_two_launches_share_the_models(make: Make) -> None:
    single = train(make("single"))
    config = make("double")
    launches = [launch(config) for _ in range(2)]
    said = "".join(end(each) for each in launches)
    assert Counter(re.findall(r"^(\w+): \d+ steps, ", said, re.MULTILINE)) == dict.fromkeys(
        single, 1
    )
    assert_same(config, single)


@pytest.mark.slow
def test_all_processes_leave_a_model_that_others_have_taken(make: Make) -> None:
    single = train(make("single"), only=["base"])
    config = make("double")
    said = end(launch(config, ROBBED))
    assert said.count("base: another process has taken it over") == 1
    assert said.count("base: training 320 tokens in 10 steps, resuming after step 3") == 1
    assert said.count("base: 10 steps") == said.count("code: 9 steps") == 1
    assert_same(config, single)


def test_ray_trains(make: Make) -> None:
    pytest.importorskip("ray", reason="ray is not installed; pip install ray")
    config = make()
    done = subprocess.run(
        [sys.executable, LAUNCH / "ray_train.py", config.source, "--references", "1",
         "--n-processes", "2", "--gpus", "0", "--address", "local"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all 5 models are there") == 2
    for name in ("base", "web", "code", "math", "references/0"):
        assert len(re.findall(rf"trained .*\b{name}\b.*; all", done.stdout)) == 1
