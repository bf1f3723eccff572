"""A study of three tiny datasets, and what tests ask of its models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optuna_demix._progress import Report
from optuna_demix.config import StudyConfig
from optuna_demix.training import TrainedModel, train_study
from optuna_demix.training._job import Job
from optuna_demix.training._pilot import Pilot
from optuna_demix.training.data.corpus import corpus_of
from optuna_demix.training.data.tokens import blocks_of
from optuna_demix.training.data.vocabulary import Vocabulary
from tests.tiny_models import LLAMA

WORDS = {"web": "the of and to in", "code": "def return class if", "math": "one two three four"}


SEQUENCE, BATCH = 8, 4


STUDY: dict[str, Any] = {
    "run_dir": "run",
    "datasets": {name: {"files": [f"{name}.jsonl"]} for name in WORDS},
    "components": list(WORDS),
    "general": {"dataset": "web", "share": 0.25},
    "capabilities": {"all": [{"task": "some_task", "metric": "acc"}]},
    "training": {
        "tokenizer": "tokenizer",
        "model": {**LLAMA, "model_type": "llama", "max_position_embeddings": 16},
        "sequence_length": SEQUENCE,
        "batch_size": BATCH,
        "save_every": 3,
        "base": {"tokens": 10 * SEQUENCE * BATCH, "learning_rate": 0.003},
        "component": {"tokens": 9 * SEQUENCE * BATCH, "learning_rate": 0.001},
    },
}


Make = Callable[..., StudyConfig]


def train(config: StudyConfig, **options: Any) -> dict[str, TrainedModel]:
    lines: list[str] = options.pop("lines", [])
    models = train_study(config, device="cpu", report=lines.append, **options)
    return {model.name: model for model in models}


def weights(model: TrainedModel | Path) -> bytes:
    path = model.path if isinstance(model, TrainedModel) else model
    return (path / "model.safetensors").read_bytes()


def record(model: TrainedModel) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((model.path / "training.json").read_text())
    return value


def job_of(config: StudyConfig) -> Job:
    assert config.training is not None
    vocabulary = Vocabulary.open(config, config.training)
    return Job(config, config.training, vocabulary, "cpu", Report())


def cache_of(config: StudyConfig, dataset: str) -> Path:
    (shard,) = blocks_of(job_of(config), corpus_of(config, dataset)).shards
    return Path(shard.file.url)


def interrupt(monkeypatch: pytest.MonkeyPatch, signum: int, at: int) -> None:
    """Send this process a signal after a step."""
    step = Pilot.step

    def stopped(self: Any, number: int, control: Any) -> None:
        if number == at:
            os.kill(os.getpid(), signum)
        step(self, number, control)

    monkeypatch.setattr(Pilot, "step", stopped)
