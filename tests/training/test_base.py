from __future__ import annotations

import json
from typing import Any

import pytest

from optuna_demix.config import StudyConfig
from optuna_demix.errors import ConfigError
from tests.tiny_models import llama_config
from tests.training.samples import Make, train

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class TestExistingBase:
    CHANGES = {"training.base": None, "training.model": None, "base": "given"}

    def save_base(self, config: StudyConfig, dtype: Any, spoilt: bool = False) -> None:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            llama_config(
                max_position_embeddings=16, vocab_size=15, eos_token_id=0, bos_token_id=None
            )
        )
        if spoilt:
            torch.nn.init.constant_(model.model.norm.weight, float("nan"))
        model.to(dtype).save_pretrained(config.base_path)

    def test_components_keep_the_dtype_of_the_base(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.bfloat16)
        code = train(config, only=["code"])["code"]
        loaded = transformers.AutoModelForCausalLM.from_pretrained(code.path, dtype="auto")
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
        assert json.loads((code.path / "config.json").read_text())["dtype"] == "bfloat16"

    def test_another_base_is_another_recipe(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32)
        train(config, only=["code"])
        self.save_base(config, torch.bfloat16)
        with pytest.raises(ConfigError, match="code: the base has changed; .*--retrain code"):
            train(config, only=["code"])

    def test_loss_that_is_not_finite_stops_training(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32, spoilt=True)
        with pytest.raises(ConfigError, match="learning_rate: the loss of code became nan"):
            train(config, only=["code"])
        assert not config.component_path("code").exists()

    def test_missing_base_is_refused(self, make: Make) -> None:
        with pytest.raises(ConfigError, match="base: there is no base checkpoint in .*given"):
            train(make(changes=self.CHANGES))

    def test_base_without_safetensors_is_refused(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        config.base_path.mkdir()
        (config.base_path / "config.json").write_text("{}")
        with pytest.raises(ConfigError, match="holds no .safetensors weights"):
            train(config)

    def test_vocabulary_of_the_base_must_hold_the_tokens(self, make: Make) -> None:
        config = make(changes=self.CHANGES)
        self.save_base(config, torch.float32)
        settings = json.loads((config.base_path / "config.json").read_text())
        (config.base_path / "config.json").write_text(json.dumps({**settings, "vocab_size": 9}))
        with pytest.raises(ConfigError, match="given"):
            train(config)
