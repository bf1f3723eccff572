from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.training.samples import Make, train

torch = pytest.importorskip("torch")


@pytest.mark.slow
def test_two_processes_train_the_same_model(make: Make) -> None:
    """Under torchrun the global batches are the same, so the weights agree to rounding."""
    from safetensors.numpy import load_file

    single = train(make("single"))
    config = make("double")
    code = (
        "import sys; from optuna_demix.config.study import load_study_config as load;"
        "from optuna_demix.training import train_study;"
        "train_study(load(sys.argv[1]), device='cpu', progress=False)"
    )
    script = config.source.parent / "train.py"
    script.write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(script), str(config.source)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("code: 9 steps") == 1  # one process speaks
    for name, model in single.items():
        ours = load_file(model.path / "model.safetensors")
        theirs = load_file(config.run_path / "models" / name / "model.safetensors")
        for tensor, values in ours.items():
            np.testing.assert_allclose(theirs[tensor], values, atol=1e-6)
