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


def assert_trains(arguments: list[str]) -> None:
    parsed = build_parser().parse_args(arguments)
    assert parsed.run.__name__ == "_train"
    assert not parsed.retrain  # an array's tasks would train a model again and again


@pytest.fixture
def job() -> Any:
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


@pytest.fixture
def train_job() -> Any:
    return yaml.safe_load((LAUNCH / "train_kubernetes.yaml").read_text())


def started_by(script: Path, folder: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the command that a shell script becomes."""
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("")
    fake = folder / "bin" / "optuna-demix"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], dict(os.environ), os.getpid()]))\n"
    )
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", script],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate()
    arguments, seen, pid = json.loads(out)
    assert pid == process.pid  # it is the process that schedulers signal
    return arguments, seen


def test_the_slurm_script_starts_a_worker(tmp_path: Path) -> None:
    arguments, environment = started_by(LAUNCH / "slurm.sbatch", tmp_path)
    assert_is_a_worker(arguments)
    assert environment["OPTUNA_STORAGE"] == f"@{tmp_path}/.optuna_storage"


@pytest.mark.parametrize(("gpus", "parallel"), [({}, "1"), ({"SLURM_GPUS_ON_NODE": "4"}, "4")])
def test_the_slurm_script_trains(tmp_path: Path, gpus: dict[str, str], parallel: str) -> None:
    arguments, _ = started_by(LAUNCH / "train_slurm.sbatch", tmp_path, **gpus)
    assert_trains(arguments)
    assert arguments[arguments.index("--parallel") + 1] == parallel


@pytest.mark.parametrize("name", ["slurm.sbatch", "train_slurm.sbatch"])
def test_slurm_options_are_before_the_first_command(name: str) -> None:
    lines = (LAUNCH / name).read_text().splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert options and max(options) < min(commands)
    text = "\n".join(lines)
    assert "--requeue" in text and "--array=" in text and "--signal=B:TERM@" in text


def test_the_kubernetes_jobs_fit_their_schema(job: Any, train_job: Any) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for each in (job, train_job):
        validate.validate(each, "1.30", strict=True)


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


def test_the_kubernetes_job_trains(train_job: Any) -> None:
    pod = train_job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["optuna-demix"]
    assert_trains(container["args"])
    assert "completions" not in train_job["spec"] and pod["restartPolicy"] == "Never"
    rules = train_job["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["containerName"] == container["name"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    # The run is written by all pods: no disk of one node.
    assert all("persistentVolumeClaim" in volume for volume in pod["volumes"])


def test_the_skypilot_task_trains(tmp_path: Path) -> None:
    task = yaml.safe_load((LAUNCH / "train_skypilot.yaml").read_text())
    script = tmp_path / "run.sh"
    script.write_text(task["run"])
    arguments, _ = started_by(script, tmp_path, SKYPILOT_NUM_GPUS_PER_NODE="8")
    assert_trains(arguments)
    assert arguments[arguments.index("--parallel") + 1] == "8"


def test_skypilot_reads_its_task() -> None:
    sky = pytest.importorskip("sky", reason="skypilot is not installed; pip install skypilot")
    task = sky.Task.from_yaml(str(LAUNCH / "train_skypilot.yaml"))
    assert task.num_nodes == 2 and list(task.volumes) == ["/run-dir"]
    (resources,) = task.resources
    assert resources.accelerators == {"H100": 8}


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
