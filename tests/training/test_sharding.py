"""What sharded training refuses and looks after; several processes train in test_processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optuna_demix._progress import Report
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training import TrainingInterrupted, _study
from optuna_demix.training._checkpoints import newest_checkpoint
from optuna_demix.training._job import Run
from optuna_demix.training._pilot import Pilot
from optuna_demix.training._progress import training_progress
from optuna_demix.training._sharding import check_sharded
from optuna_demix.training._signals import TrainingStop
from tests.training.samples import Make, interrupt, job_of, train, weights

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_a_single_process_cannot_share(make: Make) -> None:
    config = make(changes={"training.sharding": "full"})
    with pytest.raises(ConfigError, match="training.sharding: full needs several processes"):
        train(config)
    assert not config.run_path.exists()


def test_a_model_that_is_whole_in_each_process_is_refused() -> None:
    with pytest.raises(DemixError, match="2 parameters, such as weight, are not sharded here"):
        check_sharded(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("damage", ["none", "cut", "missing"])
def test_a_checkpoint_is_whole_if_all_its_shards_are(
    make: Make, tmp_path: Path, damage: str
) -> None:
    checkpoint = tmp_path / "partial" / "checkpoint-3"
    shard = checkpoint / "optimizer_0" / "__1_0.distcp"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"1234")
    (checkpoint / "scheduler.pt").write_bytes(b"1")
    job = job_of(make())
    run = Run("web", "training.component", tmp_path, job.training.component, {}, 9)
    with training_progress(1, Report()) as meter:
        Pilot(job, run, TrainingStop(), meter, None).saved(checkpoint)
    if damage == "cut":
        shard.write_bytes(b"123")
    elif damage == "missing":
        shard.unlink()
    assert newest_checkpoint(checkpoint.parent) == (checkpoint if damage == "none" else None)


class TestAnotherLayout:
    @pytest.fixture
    def stopped(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
        config = make("stopped")
        interrupt(monkeypatch, 15, at=4)
        with pytest.raises(TrainingInterrupted):
            train(config, only=["base"])
        monkeypatch.undo()
        file = config.run_path / "models" / ".partial" / "base" / "checkpoint-4" / "complete.json"

        def change(**values: Any) -> Any:
            file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
            return config

        return change

    def test_is_refused(self, stopped: Any) -> None:
        config = stopped(sharding="full", checkpoints="sharded")
        with pytest.raises(
            ConfigError, match="training.sharding: base was begun with full; .* or remove .*/base "
        ):
            train(config, only=["base"])

    def test_of_more_processes_is_said(self, stopped: Any, make: Make) -> None:
        whole = train(make("whole"), only=["base"])["base"]
        lines: list[str] = []
        resumed = train(stopped(processes=8), only=["base"], lines=lines)["base"]
        assert "base: begun by 8 processes, 1 go on" in "\n".join(lines)
        assert weights(resumed) == weights(whole)


@pytest.mark.parametrize("field", ["gradient_checkpointing", "bf16"])
def test_memory_is_saved_without_another_model(make: Make, field: str) -> None:
    from safetensors.numpy import load_file

    plain = train(make("plain"), only=["base"])["base"]
    config = make("lean", {f"training.{field}": True})
    lean = train(config, only=["base"])["base"]
    ours, theirs = (load_file(m.path / "model.safetensors") for m in (plain, lean))
    far = max(abs(ours[name] - theirs[name]).max() for name in ours)
    assert far < (1e-6 if field == "gradient_checkpointing" else 0.01)
    assert {values.dtype.name for values in theirs.values()} == {"float32"}


def test_a_compiler_that_fails_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    def failing(*_: Any) -> None:
        raise InternalTorchDynamoError("no working C++ compiler")

    monkeypatch.setattr(_study, "train_all", failing)
    with pytest.raises(ConfigError, match="training.compile: .*no working C.*; set it to false"):
        train(make())
