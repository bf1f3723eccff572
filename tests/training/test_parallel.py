"""Several processes of one host, with stand-ins for those that train."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from typing import Any

import pytest

from optuna_demix._process_id import PARENT_ENV
from optuna_demix.cli import main
from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError, InputError
from optuna_demix.training import TrainingInterrupted, train_parallel
from tests.forking import launcher
from tests.training.samples import Make, record, train

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def stand_in(config: StudyConfig, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shell scripts run in the place of processes that train."""
    program = config.source.parent / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.chdir(config.source.parent)


def run(config: StudyConfig, script: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """Train by shell scripts."""
    stand_in(config, script, monkeypatch)
    return train_parallel(config, ["study.yaml"], **{"n_processes": 2, **options})


def texts(config: StudyConfig, pattern: str) -> list[str]:
    return sorted(file.read_text().strip() for file in config.source.parent.glob(pattern))


def test_each_process_has_its_device_and_its_share_of_threads(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    script = 'echo "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS $OPTUNA_DEMIX_PARENT" > env.$$'
    assert run(config, script, monkeypatch, n_processes=3) == 0
    parent = os.getpid()
    assert texts(config, "env.*") == [f"3 4 {parent}", f"3 4 {parent}", f"5 4 {parent}"]


def test_no_more_processes_than_models(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    assert run(config, 'echo "$@" > words.$$', monkeypatch, n_processes=9, only=["code"]) == 0
    assert texts(config, "words.*") == ["-m optuna_demix train study.yaml --no-progress"]


def test_the_command_passes_its_words_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    train(config, only=["base"])
    script = 'echo "$@" > words.$$; echo "$OPTUNA_DEMIX_RETRAIN" > env.$$'
    stand_in(config, script, monkeypatch)
    words = ["train", "study.yaml", "--only", "base", "code", "--retrain", "base"]
    assert main([*words, "--parallel", "2", "--device", "cpu"]) == 0
    said = "-m optuna_demix train study.yaml --only base code --retrain base --device=cpu"
    assert texts(config, "words.*") == [f"{said} --no-progress"] * 2
    for text in texts(config, "env.*"):
        assert re.fullmatch("[0-9a-f]{64}", json.loads(text)["base"])


def test_mistakes_are_told_once_and_before_any_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    with pytest.raises(ConfigError, match="no model 'cod'; did you mean 'code'"):
        run(config, "touch started", monkeypatch, only=["cod"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--parallel starts processes by itself"):
        run(config, "touch started", monkeypatch)
    assert not (config.source.parent / "started").exists()


def test_a_killed_process_is_replaced(
    make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "if mkdir first 2>/dev/null; then kill -9 $$; fi; echo started >> starts"
    config = make()
    assert run(config, script, monkeypatch) == 0
    assert (config.source.parent / "starts").read_text().count("started") == 2
    said = capfd.readouterr().out
    assert "was ended by SIGKILL, perhaps for lack of memory" in said
    assert "started again (1 of at most 3 times)" in said


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("kill -9 $$", 1),
        ("echo 'optuna-demix: error: no text'; exit 2", 2),
        ("if mkdir first 2>/dev/null; then exit 2; fi", 0),  # the other one has trained all
    ],
)
def test_status(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    script: str,
    status: int,
) -> None:
    assert run(make(), script, monkeypatch) == status
    said = capfd.readouterr().err
    assert said.count("error: no text") == (1 if status == 2 else 0)
    assert said.count("given up, after 3 restarts") == (2 if status == 1 else 0)


def test_a_stop_is_passed_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    home = config.source.parent
    for name in ("up", "stop"):
        os.mkfifo(home / name)

    def stop_when_up() -> None:
        seen = 0
        while seen < 2:
            seen += (home / "up").read_text().count("up")
        os.kill(os.getpid(), signal.SIGTERM)

    # A pipe that is opened for reading blocks until somebody writes: here, until the signal.
    script = "trap 'echo stopped > stopped.$$; exit 143' TERM; echo up > up; read x < stop"
    watcher = threading.Thread(target=stop_when_up)
    watcher.start()
    assert run(config, script, monkeypatch) == 128 + signal.SIGTERM
    watcher.join()
    assert texts(config, "stopped.*") == ["stopped", "stopped"]


def test_a_process_stops_when_its_parent_is_gone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    monkeypatch.setenv("OPTUNA_DEMIX_PARENT", "1")
    said = "stopped by the end of the command that started it, before base; the same command"
    with pytest.raises(TrainingInterrupted, match=said):
        train(config)


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_train_all_models(
    make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fresh: bool
) -> None:
    config = make()
    if not fresh:  # a forked one has another parent
        stand_in(config, f'unset {PARENT_ENV}; exec {launcher()} python "$@"', monkeypatch)
    assert main(["train", str(config.source), "--parallel", "2"]) == 0
    said = capfd.readouterr()
    for name in ("base", "web", "code", "math"):
        assert len(re.findall(rf"\[train \d\] {name}: \d+ steps, ", said.out)) == 1
    models = train(config)
    assert all(model.skipped for model in models.values())
    assert {record(model)["device"] for model in models.values()} == {"cpu"}
    assert "next: optuna-demix check" in said.err
