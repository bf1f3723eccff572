"""A whole study small enough for a test: tokenizer, components, tasks and ``study.yaml``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.forking import run_forked
from tests.tiny_models import VOCABULARY, byte_tokenizer, llama_config

COMPONENTS = ("prose", "code", "math")
TEXTS = {
    "prose": "the cat sat on the mat and the dog lay by the door . ",
    "code": "def add ( a , b ) : return a + b ; print ( add ( 1 , 2 ) ) ",
    "math": "let x be a root of p ; then p ( x ) = 0 and x - r divides p . ",
}


def make_study(root: Path, **changes: Any) -> Path:
    """Write a study with three random components under ``root``; returns its ``study.yaml``."""
    root.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    for seed, name in enumerate(COMPONENTS):
        save_model(root / "run" / "models" / name, tokenizer, seed=seed)
    tasks = root / "tasks"
    tasks.mkdir()
    for name, text in TEXTS.items():
        write_task(tasks, name, text)
    return write_study(root, **changes)


def write_study(root: Path, **changes: Any) -> Path:
    """Write ``study.yaml`` alone, with some fields changed (``None`` removes one)."""
    study: dict[str, Any] = {
        "run_dir": "run",
        "proxy": "merged",
        "components": list(COMPONENTS),
        "capabilities": {
            "language": [{"task": "tiny_prose", "metric": "bits_per_byte"}],
            "reasoning": [
                {"task": "tiny_code", "metric": "bits_per_byte"},
                {"task": "tiny_math", "metric": "bits_per_byte"},
            ],
        },
        "scoring": {"include_path": "tasks", "batch_size": 4, "max_length": 32},
        "sampler": {"seed": 0, "n_startup_trials": 3},
    }
    study.update(changes)
    file = root / "study.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in study.items() if v is not None}))
    return file


def make_tokenizer() -> Any:
    return byte_tokenizer(TEXTS.values())


def save_model(folder: Path, tokenizer: Any, *, seed: int) -> None:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    config = llama_config(
        vocab_size=VOCABULARY,
        initializer_range=0.5,  # so that components differ and mixtures have something to trade
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_task(folder: Path, name: str, text: str) -> None:
    rows = [json.dumps({"page": text * 2 + str(i)}) for i in range(4)]
    (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    task = {
        "task": f"tiny_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "output_type": "loglikelihood_rolling",
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def command(
    *arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``optuna`` or ``optuna-demix`` as a user would."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return run_forked([str(word) for word in arguments], cwd=cwd, environment=given)
