"""What ``train`` saves of a mixture of experts, a worker merges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest
import torch
from transformers import AutoModelForCausalLM

from optuna_demix.config import load_study_config
from optuna_demix.merging import Arena, LiveModel
from optuna_demix.training import train_study
from optuna_demix.workers.run import run_worker
from tests.tiny_models import LLAMA
from tests.tiny_study import COMPONENTS, TEXTS, make_tokenizer, write_study, write_task

pytestmark = pytest.mark.xdist_group("worker")

SEQUENCE, BATCH = 8, 4
MODEL = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_key_value_heads": 1,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose components were trained from three short texts."""
    root = tmp_path_factory.mktemp("trained")
    (root / "tasks").mkdir()
    for name, text in TEXTS.items():
        write_task(root / "tasks", name, text)
        (root / f"{name}.jsonl").write_text((json.dumps({"text": text * 4}) + "\n") * 4)
    make_tokenizer().save_pretrained(root / "tokenizer")
    train_study(load_study_config(_write(root, "float32")), progress=False, report=lambda _: None)
    return root


def _write(root: Path, dtype: str) -> Path:
    return write_study(
        root,
        datasets={name: {"files": [f"{name}.jsonl"]} for name in COMPONENTS},
        training={
            "tokenizer": "tokenizer",
            "model": MODEL,
            "sequence_length": SEQUENCE,
            "batch_size": BATCH,
            "base": {"tokens": 2 * SEQUENCE * BATCH, "learning_rate": 0.01},
            "component": {"tokens": 2 * SEQUENCE * BATCH, "learning_rate": 0.01},
        },
        merging={"dtype": dtype},
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_worker_merges_what_train_has_saved(trained: Path, dtype: str) -> None:
    config = load_study_config(_write(trained, dtype))
    storage = f"sqlite:///{trained / dtype}.db"
    optuna.create_study(storage=storage, study_name="mix", directions=["maximize", "maximize"])
    report = run_worker(
        config, storage=storage, study_name="mix", n_trials=2, device="cpu", progress=False
    )
    assert report.healthy
    study = optuna.load_study(storage=storage, study_name="mix")
    assert all(math.isfinite(value) for trial in study.trials for value in trial.values)
    live = LiveModel(Arena.open(config.arena_path))
    live.merge([0.25, 0.25, 0.5])
    models = [
        AutoModelForCausalLM.from_pretrained(config.component_path(name), dtype=live.dtype)
        for name in live.names
    ]
    assert live.dtype == getattr(torch, dtype)
    for name, merged in live.model.state_dict().items():
        a, b, c = (model.state_dict()[name].double() for model in models)
        wanted = 0.25 * a + 0.25 * b + 0.5 * c
        eps = torch.finfo(merged.dtype).eps
        torch.testing.assert_close(merged.double(), wanted, rtol=eps, atol=1e-6)
