"""Six datasets in six formats, from files to a recommendation, by the commands that users type."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.tiny_models import LLAMA
from tests.tiny_study import TEXTS, command, make_tokenizer, write_task
from tests.training.data.samples import write_mds, write_megatron

pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")

FILES = {
    "prose": {"files": ["prose/*.jsonl.gz"]},
    "code": {"files": ["code.parquet"], "template": "# {title}\n{body}"},
    "math": {"files": ["math.saved"], "split": "train", "text_field": "page"},
    "logs": {"files": ["logs_text.bin"]},
    "news": {"files": ["news.mds"]},
    "ids": {"files": ["ids.bin"], "token_dtype": "uint16"},
}


def write_datasets(root: Path, tokenizer: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    prose, code, math = (text * 4 for text in TEXTS.values())
    (root / "prose").mkdir()
    for part in range(2):
        lines = "".join(json.dumps({"text": prose}) + "\n" for _ in range(4))
        (root / "prose" / f"{part}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table({"title": ["add"] * 8, "body": [code] * 8}), root / "code.parquet")
    split = datasets.Dataset.from_dict({"page": [math] * 8})
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(root / "math.saved"))
    encoded = [tokenizer.encode(text * 3) + [0] for text in TEXTS.values()]  # type: ignore[attr-defined]
    write_megatron(root / "logs_text", encoded)
    write_mds(root / "news.mds", {"text": "str"}, [{"text": prose + math}] * 8)
    np.concatenate(encoded[::-1]).astype("<u2").tofile(root / "ids.bin")


def test_six_formats_lead_to_a_recommendation(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tasks").mkdir()
    for name, text in TEXTS.items():
        write_task(tmp_path / "tasks", name, text)
    write_datasets(tmp_path, tokenizer)
    study = {
        "run_dir": "run",
        "proxy": "merged",
        "datasets": FILES,
        "components": list(FILES),
        "general": {"dataset": "prose", "share": 0.5},
        "capabilities": {
            name: [{"task": f"tiny_{name}", "metric": "bits_per_byte"}] for name in TEXTS
        },
        "objective": "composite",
        "scoring": {"include_path": "tasks", "batch_size": 4, "max_length": 32},
        "sampler": {"seed": 0, "n_startup_trials": 3},
        "training": {
            "tokenizer": "tokenizer",
            "model": {"model_type": "llama", **LLAMA},
            "sequence_length": 16,
            "batch_size": 4,
            "base": {"tokens": 640, "learning_rate": 0.01},
            "component": {"tokens": 320, "learning_rate": 0.01},
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    environment = {"OPTUNA_STORAGE": "sqlite:///study.db", "HF_HUB_OFFLINE": "1"}
    for line in (
        "optuna-demix check study.yaml",
        "optuna-demix train study.yaml --device cpu",
        "optuna create-study --study-name mix --direction maximize",
        "optuna-demix worker study.yaml --study-name mix --n-trials 3 --no-dashboard --device cpu",
        "optuna-demix recommend study.yaml --study-name mix --json -",
    ):
        done = command(*line.split(), cwd=tmp_path, environment=environment)
        assert done.returncode == 0, f"{line}: {done.stderr}{done.stdout}"
    weights = json.loads(done.stdout)["mixtures"]["recommended"]["merge_weights"]
    assert set(weights) == set(FILES) and sum(weights.values()) == pytest.approx(1.0)
    for name in FILES:
        record = json.loads((tmp_path / f"run/models/{name}/training.json").read_text())
        assert record["data"][name]["tokens"] == (320 if name == "prose" else 160)
    # What is tokens already was not copied.
    assert len(list((tmp_path / "run/cache").glob("tokens-*.npy"))) == 4
    assert len(list((tmp_path / "run/cache").glob("tokens-*.checked"))) == 2
