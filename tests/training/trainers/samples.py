"""Data as each trainer reads it, and the plan of a tiny study."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.training.trainers import TRAINERS, PlanOptions, write_plan
from tests.tiny_models import LLAMA
from tests.training.samples import WORDS

TORCHTITAN = "torchtitan.experiments.transformers_modeling_backend.config_registry"
TORCHTITAN_STUBS = ("torch.utils.tensorboard", "triton")

READS_TEXT = [name for name, trainer in TRAINERS.items() if trainer.data is None]
READS_TOKENS = [name for name, trainer in TRAINERS.items() if trainer.data is not None]


def plan(config: StudyConfig, trainer: str, **options: Any) -> Path:
    """Write a plan, with paths that need not be there where the trainer reads tokens."""
    if trainer in READS_TOKENS:
        options.setdefault("paths", "/data/{dataset}")
    return write_plan(config, trainer, PlanOptions(**options), report=lambda line: None)


def write_tokens(folder: Path, trainer: str, name: str, count: int) -> list[str]:
    """Write so many tokens of a dataset in a trainer's format; what the study calls them."""
    ids = np.arange(count, dtype="<u2") % 15
    if trainer == "nanotron":
        (folder / name).mkdir()
        ids.tofile(folder / name / "part.ds")
        return [f"{name}/part.ds"]
    if trainer == "olmo-core":
        ids.tofile(folder / f"{name}.npy")
        return [f"{name}.npy"]
    if trainer == "llm-foundry":
        (folder / name).mkdir()
        (folder / name / "index.json").write_text('{"version": 2, "shards": []}')
        (folder / name / "shard.00000.mds").write_bytes(bytes(count))
        return [name]
    ids.tofile(folder / f"{name}.bin")
    (folder / f"{name}.idx").write_bytes(b"")
    return [f"{name}.bin"]


def in_format(trainer: str) -> dict[str, Any]:
    """Changes of the study for datasets in a trainer's own format."""
    ends = {"nanotron": "/part.ds", "olmo-core": ".npy", "llm-foundry": ""}
    return {f"datasets.{name}.files": [f"{name}{ends.get(trainer, '.bin')}"] for name in WORDS}


def module_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a planned module as its trainer does."""
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, file.stem, raising=False)
    return importlib.import_module(file.stem)


def start_for(folder: Path, kind: str = "llama", **changes: Any) -> Any:
    """The model that a plan's base starts from."""
    import transformers

    config = transformers.AutoConfig.for_model(kind, **{**LLAMA, "vocab_size": 15, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "start")
    return model
