"""Three datasets with a tokenizer, and studies of them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from optuna_demix.config import StudyConfig, load_study_config
from tests.tiny_models import word_tokenizer
from tests.training.samples import STUDY, WORDS, Make

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets of 40 short documents, and a tokenizer that knows their words."""
    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(0)
    for name, words in WORDS.items():
        documents = [" ".join(rng.choices(words.split(), k=rng.randint(3, 9))) for _ in range(40)]
        lines = [json.dumps({"text": text}) for text in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    known = ["<eos>", "<unk>", *" ".join(WORDS.values()).split()]
    word_tokenizer(known, eos_token="<eos>").save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def make(corpora: Path, tmp_path: Path) -> Make:
    """Write a study: ``make("folder", {"training.seed": 1, "training.base": None})``."""

    def write(folder: str = "study", changes: Mapping[str, Any] | None = None) -> StudyConfig:
        home = tmp_path / folder
        if not home.exists():
            home.mkdir()
            for name in WORDS:
                (home / f"{name}.jsonl").write_bytes((corpora / f"{name}.jsonl").read_bytes())
            (home / "tokenizer").symlink_to(corpora / "tokenizer")
        study = json.loads(json.dumps(STUDY))
        for field, value in (changes or {}).items():
            *parents, last = field.split(".")
            place = study
            for parent in parents:
                place = place[parent]
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        (home / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study_config(home / "study.yaml")

    return write
