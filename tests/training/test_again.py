from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from optuna_demix.errors import ConfigError
from tests.training.samples import Make, train, weights

pytest.importorskip("torch")
pytest.importorskip("transformers")


class TestFinishedModels:
    def test_are_skipped(self, make: Make) -> None:
        config = make()
        first = train(config)
        before = {name: (model.path / "model.safetensors").stat() for name, model in first.items()}
        lines: list[str] = []
        again = train(config, lines=lines)
        assert all(model.skipped for model in again.values())
        assert not any(model.skipped for model in first.values())
        for name, model in again.items():
            assert (model.path / "model.safetensors").stat() == before[name]
            assert dataclasses.replace(model, skipped=False) == first[name]
        assert lines == [f"{name}: is there already" for name in first]

    def test_changed_recipe_is_refused_until_retrained(self, make: Make) -> None:
        first = train(make(), only=["base", "code", "math"])
        kept = weights(first["code"])
        changed = make(changes={"training.component.learning_rate": 0.002})
        with pytest.raises(ConfigError) as caught:
            train(changed, only=["base", "code", "math"])
        message = str(caught.value)
        assert "code: learning_rate was 0.001, is 0.002" in message
        assert "--retrain code --retrain math" in message and "base" not in message
        assert weights(first["code"]) == kept
        again = train(changed, only=["base", "code", "math"], retrain=["code", "math"])
        assert [model.skipped for model in again.values()] == [True, False, False]
        assert weights(again["code"]) != kept
        assert all(model.skipped for model in train(changed, only=["base", "code"]).values())

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"training.seed": 1}, "seed was 0, is 1"),
            ({"training.base.tokens": 2000}, "tokens was 320, is 2000"),
            ({"training.base.composition": {"web": 1.0}}, "share of web was 0.5, is 1.0"),
            ({"training.model.hidden_size": 32}, "model was"),
        ],
    )
    def test_what_changed_is_named(self, make: Make, changes: dict[str, Any], said: str) -> None:
        train(make(), only=["base"])
        with pytest.raises(ConfigError) as caught:
            train(make(changes=changes), only=["base"])
        assert said in str(caught.value)
        assert "--retrain base" in str(caught.value)

    def test_changed_text_is_refused(self, make: Make) -> None:
        config = make()
        train(config, only=["base", "code", "math"])
        with (config.source.parent / "code.jsonl").open("a") as stream:
            stream.write('{"text": "def"}\n')
        with pytest.raises(ConfigError, match="code: the text of code has changed"):
            train(config, only=["code", "math"])

    def test_components_of_a_base_trained_again_are_refused(self, make: Make) -> None:
        train(make(), only=["base", "code"])
        changed = make(changes={"training.base.learning_rate": 0.01})
        with pytest.raises(ConfigError, match="code: the base has changed; .*--retrain code"):
            train(changed, only=["base", "code"], retrain=["base"])
        again = train(changed, only=["base", "code"], retrain=["code"])
        assert [model.skipped for model in again.values()] == [True, False]

    def test_a_base_trained_again_to_the_same_weights_keeps_its_components(
        self, make: Make
    ) -> None:
        config = make()
        train(config, only=["base", "code"])
        again = train(config, only=["base", "code"], retrain=["base"])
        assert [model.skipped for model in again.values()] == [False, True]

    def test_damaged_weights_are_refused(self, make: Make) -> None:
        config = make()
        base = train(config, only=["base"])["base"]
        (base.path / "model.safetensors").write_bytes(weights(base)[:-1])
        with pytest.raises(ConfigError, match="model.safetensors is missing or cut short"):
            train(config, only=["base"])

    def test_a_foreign_directory_is_left_alone(self, make: Make) -> None:
        config = make()
        (config.base_path).mkdir(parents=True)
        (config.base_path / "mine").write_text("precious")
        for retrain in ([], ["base"]):
            with pytest.raises(ConfigError, match="was not made by train"):
                train(config, only=["base"], retrain=retrain)
        assert (config.base_path / "mine").read_text() == "precious"

    def test_components_given_by_hub_or_path_are_not_trained(self, make: Make) -> None:
        components = {"web": {}, "code": {"hub": "some/model"}, "math": {"path": "given"}}
        config = make(changes={"components": components})
        (config.source.parent / "given").mkdir()
        assert list(train(config)) == ["base", "web"]
        with pytest.raises(ConfigError, match="components.code: is given by hub or path"):
            train(config, only=["code"])
