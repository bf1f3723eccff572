"""Several workers of one host, with stand-ins for the workers themselves."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_demix._process_id import name_of
from optuna_demix.attributes import FAILURE_ATTR, WORKER_ATTR
from optuna_demix.config import load_study_config
from optuna_demix.workers.fleet import device_groups, run_workers
from tests.tiny_study import write_study


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'mix.db'}?password=geheim"
    optuna.create_study(storage=made, study_name="mix", directions=["maximize"] * 2)
    return made


def run(
    tmp_path: Path, url: str, script: str, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> int:
    """Run two processes of a shell script in the place of workers."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.chdir(tmp_path)
    return run_workers(
        ["study.yaml", "--study-name", "mix"],
        config=load_study_config(write_study(tmp_path, **changes)),
        storage=url,
        study_name="mix",
        n_workers=2,
        n_trials=4,
        progress=False,
    )


def test_the_url_is_passed_on_where_nobody_sees_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'echo "$@" > arguments.$$; echo "$OPTUNA_STORAGE $OPTUNA_DEMIX_PARENT" > env.$$'
    assert run(tmp_path, url, script, monkeypatch) == 0
    arguments = [file.read_text() for file in tmp_path.glob("arguments.*")]
    assert len(arguments) == 2
    assert all(text.startswith("-m optuna_demix worker study.yaml") for text in arguments)
    assert all("geheim" not in text for text in arguments)
    for file in tmp_path.glob("env.*"):
        assert file.read_text().split() == [url, str(os.getpid())]


@pytest.mark.parametrize(
    ("devices", "n_workers", "device", "groups"),
    [
        ("0 1 2 3", 2, None, ["0", "1", "2", "3"]),
        ("0 1", 3, "cuda", ["0", "1"]),
        ("0 1 2 3", 2, "auto", ["0,1", "2,3"]),
        ("0 1 2 3 4", 2, "balanced", ["0,1", "2,3,4"]),
        ("0 1", 3, "auto", ["0", "1"]),
        ("4 5 6 7 8", 2, {"": 0, "lm_head": "cuda:1"}, ["4,5", "6,7"]),
        ("4 5", 2, {"": 0, "lm_head": 2}, ["4,5"]),
        ("4 5", 2, {"": "cpu"}, ["4", "5"]),
        ("0 1", 2, "cuda:1", []),
        ("0", 2, "auto", []),
        ("", 2, {"": 0, "lm_head": 1}, []),
    ],
)
def test_workers_share_the_devices_of_a_host(
    devices: str, n_workers: int, device: Any, groups: list[str]
) -> None:
    assert device_groups(devices.split(), n_workers, device) == groups


def test_each_worker_sees_the_group_that_a_device_map_needs(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    script = 'echo "$CUDA_VISIBLE_DEVICES" > env.$$'
    scoring = {"include_path": "tasks", "device_map": "balanced"}
    assert run(tmp_path, url, script, monkeypatch, scoring=scoring) == 0
    assert {file.read_text() for file in tmp_path.glob("env.*")} == {"2,3\n", "5,7\n"}
    assert "workers see CUDA devices 2,3 | 5,7" in capfd.readouterr().err


def test_a_killed_worker_is_said_its_trial_queued_and_replaced(
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The one that takes the folder waits to be killed, with a trial of its own."""
    script = "if mkdir first 2>/dev/null; then echo $$ > p; mv p pid; mkfifo f; read x <f; fi"
    over = threading.Event()
    study = optuna.load_study(study_name="mix", storage=url)

    def kill_when_up() -> None:
        while not over.wait(0.05):
            if (tmp_path / "pid").exists():
                pid = int((tmp_path / "pid").read_text())
                trial = study.ask()
                trial.suggest_float("prose", 0, 1)
                trial.set_user_attr(WORKER_ATTR, name_of(pid))
                os.kill(pid, signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_when_up)
    killer.start()
    try:
        assert run(tmp_path, url, script, monkeypatch) == 0
    finally:
        over.set()
        killer.join()
    said = capfd.readouterr().err
    pid = (tmp_path / "pid").read_text().strip()
    assert f"(process {pid}) was ended by SIGKILL, perhaps for lack of memory" in said
    assert "the mixture of its trial 0 is queued again" in said
    assert "started again (1 of at most 3 times)" in said
    lost, queued = study.get_trials()
    assert lost.user_attrs[FAILURE_ATTR] == "its worker died"
    assert queued.state.name == "WAITING" and queued.params == lost.params


def test_a_worker_that_is_killed_again_and_again_is_given_up(
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = "echo start >> starts; kill -9 $$"
    assert run(tmp_path, url, script, monkeypatch) == 1
    assert (tmp_path / "starts").read_text().count("start") == 2 * (1 + 3)
    assert capfd.readouterr().err.count("given up, after 3 restarts without a trial") == 2


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 1"])
def test_a_study_that_has_its_trials_is_a_success(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    study = optuna.load_study(study_name="mix", storage=url)
    for _ in range(4):
        study.add_trial(optuna.trial.create_trial(values=[0.0, 0.0]))
    assert run(tmp_path, url, f"echo start >> starts; {end}", monkeypatch) == 0
    assert (tmp_path / "starts").read_text().count("start") == 2


def test_what_all_workers_say_is_printed_once(
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = "echo loading tasks; echo 'error: no task'; echo '2 trials completed, 0 failed'"
    run(tmp_path, url, script, monkeypatch)
    said = capfd.readouterr().err
    assert said.count("loading tasks") == said.count("no task") == 1
    assert said.count("2 trials completed") == 2


def test_a_stop_is_passed_on(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "trap 'echo stopped >> stopped; exit 0' TERM; mkfifo f.$$; echo up >> up; read x <f.$$"
    )
    # Opened for reading without a writer, the pipe blocks until the signal comes.
    ready = threading.Event()

    def stop_when_up() -> None:
        up = tmp_path / "up"
        while not ready.wait(0.05):
            if up.exists() and up.read_text().count("up") == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=stop_when_up)
    watcher.start()
    try:
        assert run(tmp_path, url, script, monkeypatch) == 128 + signal.SIGTERM
    finally:
        ready.set()
        watcher.join()
    assert (tmp_path / "stopped").read_text().split() == ["stopped", "stopped"]
