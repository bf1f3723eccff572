"""Every example is run as a user runs it."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

import optuna
import pytest
import yaml

from tests.forking import run_forked

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPECTED = {
    "plain_optimize.py": "recommended",
    "ask_and_tell.py": "best of 32",
    "many_workers.py": "best of ",
}


def run(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_forked(
        ["python", str(EXAMPLES / name), *arguments],
        cwd=cwd or EXAMPLES,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# In processes of its own, which import everything again; what each does is tested below.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "many_workers.py" else ())
        for name in EXPECTED
    ],
)
def test_an_example_runs(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout and "Warning" not in done.stderr, done.stderr


def test_a_worker_of_the_example_gives_the_study_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(EXAMPLES / "many_workers.py"))
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    study = optuna.create_study(storage=url, study_name="mix", direction="maximize")
    example["worker"](url)
    assert len(study.trials) == example["N_TRIALS"]
    assert "12 trials here" in capsys.readouterr().out
    example["worker"](url)
    assert "0 trials here" in capsys.readouterr().out


def test_ray_tune_uses_the_sampler() -> None:
    pytest.importorskip("ray.tune", reason="Ray Tune is not installed; pip install 'ray[tune]'")
    done = run("ray_tune.py")
    assert done.returncode == 0, done.stderr
    assert "best of 16" in done.stdout


def test_hydra_sweeps_with_the_sampler(tmp_path: Path) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_optuna_sweeper",
        reason="Hydra's sweeper is not installed; pip install 'hydra-optuna-sweeper>=1.4.0rc3'",
    )
    done = run("hydra_sweep.py", "--multirun", "hydra.sweeper.n_jobs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.rglob("optimization_results.yaml")
    result = yaml.safe_load(found.read_text())
    assert result["best_value"] > -0.01
    assert sum(result["best_params"].values()) == pytest.approx(1.0, abs=1e-12)


def test_every_example_is_listed_and_run() -> None:
    files = {file.name for file in EXAMPLES.glob("*.py")}
    assert files == {*EXPECTED, "ray_tune.py", "hydra_sweep.py"}
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({name})" in listed for name in files)
