from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix._progress import Report
from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job
from optuna_demix.training._plan import plan_models
from optuna_demix.training.data import tokenizing
from optuna_demix.training.data.blocks import Blocks
from optuna_demix.training.data.corpus import corpus_of
from optuna_demix.training.data.order import repetitions
from optuna_demix.training.data.tokens import blocks_of
from optuna_demix.training.data.vocabulary import Vocabulary
from tests.tiny_models import word_tokenizer
from tests.training.data.samples import write_megatron
from tests.training.samples import BATCH, SEQUENCE, Make, train

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def job_of(config: StudyConfig, lines: list[str] | None = None) -> Job:
    training = config.training
    assert training is not None
    say = Report() if lines is None else Report(lines.append)
    return Job(config, training, Vocabulary.open(config, training), "cpu", say)


def blocks(config: StudyConfig, lines: list[str] | None = None) -> Blocks:
    return blocks_of(job_of(config, lines), corpus_of(config, "code"))


def ids(config: StudyConfig) -> list[int]:
    found = [shard.mapped() for shard in blocks(config).shards]
    return list(np.concatenate(found).tolist())


class TestText:
    def test_tokens_do_not_depend_on_format_or_batches(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pandas as pd

        expected = ids(make("jsonl"))
        home = make("parquet").source.parent
        pd.read_json(home / "code.jsonl", lines=True).to_parquet(home / "code.parquet")
        config = make("parquet", {"datasets.code.files": ["code.parquet"]})
        monkeypatch.setattr(tokenizing, "_BATCH_PIECES", 3)
        assert ids(config) == expected

    def test_encoding_is_that_of_transformers(self, make: Make, tmp_path: Path) -> None:
        """Also where the tokenizer's file asks for truncation and padding."""
        config = make(changes={"training.tokenizer": "cutting"})
        known = ["<eos>", "<unk>", "one", "two"]
        tokenizer = word_tokenizer(known, eos_token="<eos>")
        tokenizer.backend_tokenizer.enable_truncation(2)
        tokenizer.backend_tokenizer.enable_padding(length=9)
        tokenizer.save_pretrained(config.resolve("cutting"))
        texts = ["one two one two", "", "two three", "one"]
        vocabulary = job_of(config).vocabulary
        expected = transformers.AutoTokenizer.from_pretrained(config.resolve("cutting"))
        assert vocabulary.encode(texts) == expected(texts, add_special_tokens=False)["input_ids"]
        assert len(vocabulary.encode(texts)[0]) == 4

    def test_tokenizers_of_python_do_too(self, make: Make) -> None:
        config = make(changes={"training.tokenizer": "bytes"})
        transformers.ByT5Tokenizer().save_pretrained(config.resolve("bytes"))
        with (config.source.parent / "code.jsonl").open() as lines:
            text = json.loads(next(lines))["text"]
        assert ids(config)[: len(text) + 1] == [*(byte + 3 for byte in text.encode()), 1]

    def test_a_failure_leaves_nothing_and_a_kill_what_is_saved(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = ids(make("whole"))
        config = make("killed")
        monkeypatch.setattr(tokenizing, "_BATCH_PIECES", 4)
        monkeypatch.setattr(tokenizing, "_SAVE_EVERY", 50)
        encode, calls = tokenizing._ids_of, []

        def dying(pieces: Any, *rest: Any) -> Any:
            calls.append(pieces[0])
            if len(calls) == 7:
                raise KeyboardInterrupt
            return encode(pieces, *rest)

        monkeypatch.setattr(tokenizing, "_ids_of", dying)
        with pytest.raises(KeyboardInterrupt):
            ids(config)
        (saved,) = (config.run_path / "cache").glob(".*.saved")
        state = json.loads(saved.read_text())
        assert 0 < state["taken"] < 40 and 50 <= state["tokens"] < len(expected)
        first = calls[state["taken"] // 4]
        calls[:] = [None] * 7
        assert ids(config) == expected
        assert calls[7] == first  # what was saved is not tokenized again
        assert [file.suffix for file in (config.run_path / "cache").glob(".*")] == []
        (config.source.parent / "code.jsonl").write_text('{"text": "def"}\n' * 99 + "no JSON")
        with pytest.raises(ConfigError, match="line 100: is not JSON"):
            ids(config)
        assert [file.suffix for file in (config.run_path / "cache").glob(".*")] == []

    @pytest.mark.parametrize("damage", ["state", "file", "short"])
    def test_what_cannot_be_resumed_is_begun_again(
        self, damage: str, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = ids(make("whole"))
        config = make("killed")
        file = next((make("whole").run_path / "cache").glob("tokens-*.npy"))
        cache = config.run_path / "cache"
        cache.mkdir(parents=True)
        saved, aside = cache / f".{file.name}.saved", cache / f".{file.name}.new"
        saved.write_text(json.dumps({"tokens": 9, "bytes": 146, "file": 0, "taken": 2}))
        aside.write_bytes(bytes(200))
        if damage == "state":
            saved.write_text("{")
        elif damage == "file":
            aside.unlink()
        else:
            aside.write_bytes(bytes(100))
        assert ids(config) == expected

    @pytest.mark.slow
    def test_a_process_that_is_killed_goes_on(self, make: Make) -> None:
        config = make()
        text = json.dumps({"text": "def return class if " * 500}) + "\n"
        (config.source.parent / "code.jsonl").write_text(text * 4000)
        script = (
            "import sys\n"
            "from optuna_demix.config import load_study_config\n"
            "from optuna_demix.training.data import tokenizing\n"
            "from tests.training.data.test_tokens import blocks\n"
            "tokenizing._SAVE_EVERY = 1 << 20\n"
            "blocks(load_study_config(sys.argv[1]))\n"
        )
        command = [sys.executable, "-c", script, str(config.source)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        cache = config.run_path / "cache"
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None and not list(cache.glob(".*.saved")):
                pass
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        lines: list[str] = []
        made = blocks(config, lines)
        assert made.tokens == 4000 * 2001 and not list(cache.glob(".*"))
        whole = made.shards[0].mapped().reshape(4000, 2001)
        assert (whole == whole[0]).all() and whole[0, -1] == 0


class TestTokens:
    def test_local_ids_are_mapped_and_not_copied(self, make: Make) -> None:
        config = make(changes={"datasets.code.files": ["ids.bin"]})
        write_megatron(config.source.parent / "ids", [[2, 3, 0], [4, 5, 6, 7, 0]] * 4)
        lines: list[str] = []
        made = blocks(config, lines)
        assert made[0].tolist() == [2, 3, 0, 4, 5, 6, 7, 0] and len(made) == 4
        assert not list((config.run_path / "cache").glob("*.npy"))
        assert any("checking 1 file of tokens" in line for line in lines)
        lines.clear()
        blocks(config, lines)
        assert lines == []  # checked once

    def test_ids_beyond_the_vocabulary_are_refused(self, make: Make) -> None:
        config = make(changes={"datasets.code.files": ["ids.bin"]})
        write_megatron(config.source.parent / "ids", [[1] * 20, [2, 15, 3]])
        with pytest.raises(ConfigError, match=r"ids.bin: token 22 is 15, but .* below 15; give"):
            train(config)
        assert not (config.run_path / "models").exists()
        assert not list((config.run_path / "cache").glob("*.checked"))

    @pytest.mark.parametrize(("row", "wrong"), [([1, 15], 15), ([-1, 2], -1)])
    def test_columns_of_ids_are_checked_too(self, row: list[int], wrong: int, make: Make) -> None:
        config = make(changes={"datasets.code.files": ["ids.jsonl"]})
        (config.source.parent / "ids.jsonl").write_text(json.dumps({"tokens": row * 20}))
        with pytest.raises(ConfigError, match=f"ids.jsonl: token is {wrong}, but"):
            blocks(config)

    def test_documents_without_an_end_are_told(self, make: Make) -> None:
        config = make(changes={"datasets.code.files": ["ids.npy"]})
        np.save(config.source.parent / "ids.npy", np.ones(40, np.uint16))
        lines: list[str] = []
        blocks(config, lines)
        assert any("code: no document ends with the tokenizer's eos" in line for line in lines)

    def test_text_and_ids_may_be_one_dataset(self, make: Make) -> None:
        config = make(changes={"datasets.code.files": ["code.jsonl", "ids.npy"]})
        np.save(config.source.parent / "ids.npy", np.arange(10, dtype=np.int64))
        text = ids(make("text"))
        assert ids(config) == text + list(range(10))

    def test_a_damaged_cache_is_named(self, make: Make) -> None:
        config = make()
        ids(config)
        (file,) = (config.run_path / "cache").glob("*.npy")
        file.write_bytes(file.read_bytes()[:-2])
        with pytest.raises(ConfigError, match=f"{file.name}: is damaged; delete it"):
            blocks(config)


def test_epochs_are_told_with_the_cap(make: Make) -> None:
    config = make(
        changes={
            "datasets.code.tokens": 2000,
            "mixture": {"max_epochs": {"code": 1.5}, "budget": 1000},
            "training.base.composition": {"code": 0.25, "web": 0.75},
            "training.base.tokens": 800,
            "training.component.tokens": 3200,
        }
    )
    lines: list[str] = []
    train(config, only=["base"], lines=lines)
    told = [line for line in lines if "less than its share" in line]
    assert len(told) == 1 and told[0].startswith("web: its ") and told[0].endswith(" epochs")
    job = job_of(config)
    runs = plan_models(config, job.training, 0, None).runs
    made = {name: blocks_of(job, corpus_of(config, name)) for name in ("web", "code")}
    web, code = repetitions(job, runs, made)
    needs = 100 * BATCH * 0.75 / len(made["code"])
    assert f"its share of web needs: {100 * BATCH / len(made['web']):.3g} epochs" in web
    assert f"its share of code needs: {needs:.3g} epochs, more than the 1.5 of mixture.max" in code
    lower = int(code.rpartition(" ")[2].replace(",", ""))
    assert lower == pytest.approx(100 * BATCH * SEQUENCE * 1.5 / needs, rel=0.01)
