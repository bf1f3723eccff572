from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_demix.training import _one_model
from optuna_demix.training._pilot import Pilot
from tests.training.samples import BATCH, SEQUENCE, Make, cache_of, record, train, weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class TestTrain:
    def test_components_get_their_shares_exactly(self, make: Make) -> None:
        config = make()
        models = train(config)
        assert list(models) == ["base", "web", "code", "math"]
        blocks = 9 * BATCH
        for name, asked in [
            ("web", {"web": 1.0}),
            ("code", {"code": 0.75, "web": 0.25}),
            ("math", {"math": 0.75, "web": 0.25}),
        ]:
            kept = record(models[name])
            assert {d: facts["share_asked"] for d, facts in kept["data"].items()} == asked
            for dataset, facts in kept["data"].items():
                assert facts["blocks"] == asked[dataset] * blocks
                assert facts["tokens"] == facts["blocks"] * SEQUENCE
                tokens = np.load(cache_of(config, dataset), mmap_mode="r")
                assert facts["epochs"] == facts["blocks"] / (len(tokens) // SEQUENCE)
            assert kept["steps"] == models[name].steps == 9
            assert kept["tokens"] == 9 * BATCH * SEQUENCE
            assert models[name].data_shares == pytest.approx(asked)
        # The prior is uniform: its data shares are the mean of the compositions.
        assert record(models["base"])["data"]["web"]["share_asked"] == pytest.approx(0.5)

    def test_record_says_how_a_model_was_made(self, make: Make) -> None:
        config = make(changes={"training.seed": 7})
        kept = record(train(config, only=["base"])["base"])
        assert kept["seed"] == 7
        assert kept["versions"]["torch"] == torch.__version__
        assert kept["versions"]["transformers"] == transformers.__version__
        assert kept["recipe"]["learning_rate"] == 0.003
        assert kept["final_loss"] > 0
        assert kept["tokens_per_second"] == pytest.approx(kept["tokens"] / kept["seconds"])

    def test_models_are_complete_checkpoints_without_pickle(self, make: Make) -> None:
        config = make()
        models = train(config, only=["base", "code"])
        folder = config.run_path / "models"
        assert sorted(path.name for path in folder.iterdir()) == [".partial", "base", "code"]
        assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
        for model in models.values():
            for name in ("tokenizer.json", "tokenizer_config.json"):
                source = config.resolve("tokenizer") / name
                assert (model.path / name).read_bytes() == source.read_bytes()
            loaded = transformers.AutoModelForCausalLM.from_pretrained(model.path)
            assert loaded.config.use_cache
            assert loaded.config.eos_token_id == 0
            assert loaded.config.vocab_size == 15
        assert weights(models["base"]) != weights(models["code"])

    def test_text_becomes_blocks_with_eos_between_documents(
        self, make: Make, corpora: Path
    ) -> None:
        config = make()
        train(config, only=["base"])
        tokens = np.load(cache_of(config, "code"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(corpora / "tokenizer")
        expected: list[int] = []
        for line in (corpora / "code.jsonl").read_text().splitlines():
            expected += [*tokenizer.encode(json.loads(line)["text"]), 0]
        assert tokens.tolist() == expected

    def test_text_is_tokenized_once(self, make: Make) -> None:
        config = make()
        lines: list[str] = []
        train(config, only=["base"], lines=lines)
        assert [line for line in lines if "tokenizing" in line]
        lines.clear()
        train(config, lines=lines)
        assert not [line for line in lines if "tokenizing" in line]

    def test_txt_files_are_one_document_each(self, make: Make) -> None:
        config = make()
        home = config.source.parent
        for i, text in enumerate(["def return " * 40, "class if " * 40]):
            (home / f"code{i}.txt").write_text(text)
        config = make(changes={"datasets.code.files": ["code*.txt"]})
        train(config, only=["base"])
        tokens = np.load(cache_of(config, "code"))
        assert np.flatnonzero(tokens == 0).tolist() == [80, 161]

    def test_same_seed_gives_the_same_weights(self, make: Make) -> None:
        first = train(make("first"), only=["base", "code"])
        again = train(make("again"), only=["base", "code"])
        other = train(make("other", {"training.seed": 1}), only=["base", "code"])
        for name in ("base", "code"):
            assert weights(first[name]) == weights(again[name])
            assert weights(first[name]) != weights(other[name])

    def test_learning_rate_warms_up_and_ends_at_its_floor(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates: list[float] = []
        step = Pilot.step

        def noted(self: Any, number: int, control: Any) -> None:
            rates.append(trainers[0].lr_scheduler.get_last_lr()[0])
            step(self, number, control)

        trainers: list[Any] = []
        build = _one_model.make_trainer

        def kept(*arguments: Any) -> Any:
            trainers.append(build(*arguments))
            return trainers[-1]

        monkeypatch.setattr(Pilot, "step", noted)
        monkeypatch.setattr(_one_model, "make_trainer", kept)
        config = make(changes={"training.base.warmup_ratio": 0.2})
        train(config, only=["base"])
        assert rates[:2] == pytest.approx([0.0015, 0.003])  # 2 of 10 steps
        assert all(a > b for a, b in zip(rates[1:], rates[2:], strict=False))
        assert rates[-1] == pytest.approx(0.2 * 0.003)

    def test_other_architectures_train(self, make: Make) -> None:
        for kind in ("gpt2", "gpt_neox"):
            model = {
                "model_type": kind,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 16,
            }
            if kind == "gpt_neox":
                model["intermediate_size"] = 32
            config = make(kind, {"training.model": model})
            assert list(train(config, only=["base", "code"])) == ["base", "code"]
