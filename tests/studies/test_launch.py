"""The launch recipes: each is valid for its scheduler and starts a command that there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from optuna_demix.cli._main import build_parser
from tests.tiny_study import make_study

LAUNCH = Path(__file__).parents[2] / "studies" / "_launch"


def assert_is_a_worker(arguments: list[str]) -> None:
    parsed = build_parser().parse_args(arguments)
    assert parsed.run.__name__ == "_worker"
    assert parsed.n_trials and parsed.stop_grace and parsed.study_name
    assert parsed.storage is None  # from the environment: arguments can be read by everybody


@pytest.fixture
def job() -> Any:
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


def test_the_slurm_script_starts_a_worker(tmp_path: Path) -> None:
    script = LAUNCH / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    fake = tmp_path / "bin" / "optuna-demix"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.environ['OPTUNA_STORAGE'], os.getpid()]))\n"
    )
    fake.chmod(0o755)
    process = subprocess.Popen(
        ["bash", script],
        cwd=tmp_path,
        env={"PATH": f"{fake.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate()
    arguments, storage, pid = json.loads(out)
    assert_is_a_worker(arguments)
    assert storage == f"@{tmp_path}/.optuna_storage"
    assert pid == process.pid  # it is the process that Slurm signals


def test_slurm_options_are_before_the_first_command() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert options and max(options) < min(commands)
    text = "\n".join(lines)
    assert "--requeue" in text and "--array=" in text and "--signal=B:TERM@" in text


def test_the_kubernetes_job_fits_its_schema(job: Any) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(job, "1.30", strict=True)


def test_the_kubernetes_job_starts_a_worker(job: Any) -> None:
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert worker["command"] == ["optuna-demix"]
    assert_is_a_worker(worker["args"])
    grace = float(worker["args"][worker["args"].index("--stop-grace") + 1])
    assert pod["terminationGracePeriodSeconds"] >= grace + 20
    (storage,) = worker["env"]
    assert storage["name"] == "OPTUNA_STORAGE" and "secretKeyRef" in storage["valueFrom"]
    # Without completions: workers that end well end the job, and none is started in their place.
    assert "completions" not in job["spec"] and pod["restartPolicy"] == "Never"
    mounts = {mount["name"] for mount in worker["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_ray_runs_the_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed; pip install ray")
    study_file = make_study(tmp_path / "study")
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(storage=url, study_name="mix", directions=["maximize"] * 2)
    done = subprocess.run(
        [sys.executable, LAUNCH / "ray_workers.py", study_file, "--study-name", "mix",
         "--n-trials", "6", "--n-workers", "2", "--gpus", "0", "--address", "local"],
        env={**os.environ, "OPTUNA_STORAGE": url, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the study has its 6 trials") == 2
    trials = optuna.load_study(study_name="mix", storage=url).get_trials()
    assert [trial.state.name for trial in trials].count("COMPLETE") == 6
