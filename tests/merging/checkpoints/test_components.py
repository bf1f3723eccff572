"""Components that cannot be averaged are refused with a message that names the fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, LiveModel

EMBEDDING = "model.embed_tokens.weight"
Paths = dict[str, Path]


def _rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = directory / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)


def _index(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "model.safetensors.index.json").read_text())


def test_a_set_describes_its_components(paths: Paths) -> None:
    components = ComponentSet.open(paths)
    stored = load_file(paths["web"] / "model.safetensors")
    assert components.names == ("web", "code", "math")
    assert components.paths == paths
    assert components.dtype == torch.float32
    assert components.config_path == paths["web"] / "config.json"
    assert {name: spec.shape for name, spec in components.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in stored.items()
    }
    assert components.n_parameters == sum(tensor.numel() for tensor in stored.values())


def test_shards_hold_what_a_single_file_holds(paths: Paths, sharded_paths: Paths) -> None:
    assert ComponentSet.open(sharded_paths).tensors == ComponentSet.open(paths).tensors


def test_no_components_are_refused() -> None:
    with pytest.raises(ComponentError, match="no components given"):
        ComponentSet.open({})


def _remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _truncate(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _only(name: str) -> Callable[[Path], None]:
    """Leave nothing but the weights, under another name."""

    def change(directory: Path) -> None:
        (directory / "model.safetensors").rename(directory / name)
        (directory / "config.json").unlink()

    return change


def _config(**fields: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def _state(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    return lambda directory: _rewrite(directory, change)


def _retype(name: str, dtype: torch.dtype) -> Callable[[Path], None]:
    return _state(lambda state: state.update({name: state[name].to(dtype)}))


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        pytest.param(_remove("config.json"), "config.json", "missing", id="no config"),
        pytest.param(
            lambda path: (path / "config.json").write_text("{"),
            "config.json",
            "not valid JSON",
            id="broken config",
        ),
        pytest.param(
            _remove("model.safetensors"), "", "neither model.safetensors", id="no weights"
        ),
        pytest.param(_truncate, "model.safetensors", "truncated", id="truncated weights"),
        pytest.param(
            _only("pytorch_model.bin"), "pytorch_model.bin", "pickle", id="pickle without config"
        ),
        pytest.param(
            _only("consolidated.00.pth"), "consolidated.00.pth", "pickle", id="original pickle"
        ),
        pytest.param(_pickled, "pytorch_model.bin", "save_pretrained", id="pickle only"),
        pytest.param(_only("model-Q8_0.gguf"), "model-Q8_0.gguf", "GGUF", id="GGUF"),
        pytest.param(
            _only("adapter_model.safetensors"),
            "adapter_model.safetensors",
            "without adapter_config.json",
            id="adapter without config",
        ),
        pytest.param(
            _config(quantization_config={"bits": 4}),
            "config.json",
            "'quantization_config'",
            id="quantized config",
        ),
        pytest.param(
            _config(model_type="nonesuch"),
            "config.json",
            "'model_type' is 'nonesuch'",
            id="unknown model",
        ),
        pytest.param(
            _config(model_type="gpt2"),
            "config.json",
            "'gpt2', but 'llama' in component 'web'",
            id="other model",
        ),
        pytest.param(
            _config(architectures=["Other"]),
            "config.json",
            "'architectures'",
            id="other architecture",
        ),
        pytest.param(
            _config(rms_norm_eps=0.5),
            "config.json",
            "'rms_norm_eps' is 0.5",
            id="other arithmetic",
        ),
        pytest.param(
            _config(rope_parameters={"rope_type": "default", "rope_theta": 5.0}),
            "config.json",
            "'rope_parameters' is",
            id="other positions",
        ),
        pytest.param(
            _config(tie_word_embeddings=False),
            "config.json",
            "'tie_word_embeddings' is False",
            id="other ties",
        ),
        pytest.param(
            _state(lambda state: state.pop("model.norm.weight")),
            "",
            "no tensor for parameter 'model.norm.weight'",
            id="tensor missing",
        ),
        pytest.param(
            _state(lambda state: state.update({"model.extra": torch.ones(1)})),
            "model.safetensors",
            "'model.extra' has no place in LlamaForCausalLM",
            id="tensor too many",
        ),
        pytest.param(
            _state(lambda state: state.update({"model.norm.weight": torch.ones(17)})),
            "model.safetensors",
            "'model.norm.weight' has shape [17], but config.json makes it [16]",
            id="other shape",
        ),
        pytest.param(
            _state(lambda state: state.update({k: v.bfloat16() for k, v in state.items()})),
            "",
            "stored as BF16, but component 'web' as F32",
            id="component of another dtype",
        ),
        pytest.param(
            _retype("model.norm.weight", torch.int32),
            "model.safetensors",
            "'model.norm.weight' is stored as I32",
            id="integers",
        ),
        pytest.param(
            _retype("model.norm.weight", torch.float8_e4m3fn),
            "model.safetensors",
            "'model.norm.weight' is stored as F8_E4M3",
            id="F8",
        ),
        pytest.param(_remove("tokenizer.json"), "tokenizer.json", "missing", id="no tokenizer"),
    ],
)
def test_a_bad_component_is_named(
    paths: Paths, damage: Callable[[Path], None], file: str, message: str
) -> None:
    damage(paths["code"])
    with pytest.raises(ComponentError) as caught:
        ComponentSet.open(paths)
    said = str(caught.value)
    assert said.startswith("component 'code': ")
    assert str(paths["code"] / file) in said
    assert message in said
    assert "\n" not in said


def test_a_base_is_checked_like_a_component(paths: Paths, tmp_path: Path) -> None:
    base = paths.pop("math")
    assert ComponentSet.open(paths, base=base).base is not None
    _retype("model.norm.weight", torch.int32)(base)
    with pytest.raises(ComponentError, match=r"^base: .*'model.norm.weight' is stored as I32"):
        ComponentSet.open(paths, base=base)


def test_a_base_needs_no_tokenizer(paths: Paths) -> None:
    base = paths.pop("math")
    (base / "tokenizer.json").unlink()
    assert ComponentSet.open(paths, base=base).base is not None


def test_a_missing_directory_is_named(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="component 'code': no such directory: .*nowhere"):
        ComponentSet.open({**paths, "code": tmp_path / "nowhere"})


def test_a_model_that_is_no_causal_lm_is_refused(
    paths: Paths, edit_json: Callable[..., None]
) -> None:
    for path in paths.values():
        edit_json(path / "config.json", lambda config: config.update(model_type="clip"))
    with pytest.raises(ComponentError, match="config.json: no causal language model"):
        ComponentSet.open(paths)


def test_a_config_that_transformers_does_not_know_is_refused(
    paths: Paths, edit_json: Callable[..., None]
) -> None:
    for path in paths.values():
        edit_json(path / "config.json", lambda config: config.update(model_type="nonesuch"))
    with pytest.raises(ComponentError, match="config.json: refused .*nonesuch"):
        ComponentSet.open(paths)


def test_harmless_differences_pass(paths: Paths, edit_json: Callable[..., None]) -> None:
    edit_json(
        paths["code"] / "config.json",
        lambda config: config.update(
            _name_or_path="elsewhere",
            use_cache=False,
            pad_token_id=3,
            transformers_version="5.0",
            attention_dropout=0.1,
            unsloth_version="2026.1",
            output_router_logits=True,
            router_aux_loss_coef=0.02,
            trained_by={"run": 7},
        ),
    )
    padding = {
        "strategy": "BatchLongest",
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    edit_json(
        paths["code"] / "tokenizer.json",
        lambda content: content.update(padding=padding),
    )
    assert ComponentSet.open(paths).names == ("web", "code", "math")


def test_a_gguf_file_is_no_directory(paths: Paths, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(
        ComponentError, match=r"^component 'code': .*model.gguf: GGUF.*safetensors"
    ):
        ComponentSet.open({**paths, "code": file})


def _end_at(eos: int, directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    _config(eos_token_id=eos)(directory)


class TestGeneration:
    """Where generated text ends is the first component's affair only if a study says so."""

    def test_another_end_of_text_is_named(self, paths: Paths) -> None:
        _end_at(5, paths["math"])
        with pytest.raises(ComponentError) as caught:
            ComponentSet.open(paths)
        said = str(caught.value)
        assert said.startswith("component 'math': ")
        assert "eos_token_id 5" in said and "2 in component 'web'" in said
        assert "merging.config_of" in said and "\n" not in said

    def test_the_generation_config_comes_first(self, paths: Paths) -> None:
        for path, eos in zip(paths.values(), (2, [2], 5), strict=True):
            (path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
        _config(eos_token_id=5)(paths["code"])  # is not read where the other file is there
        with pytest.raises(ComponentError, match="^component 'math': .*eos_token_id 5, but 2 in"):
            ComponentSet.open(paths)

    @pytest.mark.parametrize(
        "harmless",
        [
            {"do_sample": True, "temperature": 0.5},
            {"transformers_version": "9", "pad_token_id": 3, "bos_token_id": 7},
        ],
        ids=["what lm-eval always says", "what no token depends on"],
    )
    def test_what_reaches_no_text_passes(self, paths: Paths, harmless: dict[str, Any]) -> None:
        for path in paths.values():
            (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
        (paths["math"] / "generation_config.json").write_text(
            json.dumps({"eos_token_id": 2, **harmless})
        )
        assert ComponentSet.open(paths).generation == {"eos_token_id": 2}

    def test_a_penalty_is_named(self, paths: Paths) -> None:
        (paths["math"] / "generation_config.json").write_text(
            json.dumps({"eos_token_id": 2, "repetition_penalty": 1.5})
        )
        with pytest.raises(ComponentError, match="repetition_penalty 1.5, but None in"):
            ComponentSet.open(paths)

    def test_the_chosen_component_stands_for_all(self, paths: Paths, tmp_path: Path) -> None:
        _end_at(5, paths["math"])
        components = ComponentSet.open(paths, config_of="math")
        assert components.generation == {"eos_token_id": 5}
        live = LiveModel(Arena.build(components, tmp_path / "x.arena"))
        assert live.model.generation_config.eos_token_id == 5
        assert ComponentSet.open(paths, config_of="web").generation == {"eos_token_id": 2}

    def test_an_unknown_choice_is_refused(self, paths: Paths) -> None:
        with pytest.raises(ComponentError, match="config_of: no component 'mth'; did you mean"):
            ComponentSet.open(paths, config_of="mth")

    def test_a_base_generates_nothing(self, paths: Paths) -> None:
        base = paths.pop("math")
        _end_at(5, base)
        assert ComponentSet.open(paths, base=base).generation == {"eos_token_id": 2}


class TestShards:
    def test_a_missing_shard_is_named(self, sharded_paths: Paths) -> None:
        shard = sorted(set(_index(sharded_paths["code"])["weight_map"].values()))[1]
        (sharded_paths["code"] / shard).unlink()
        with pytest.raises(ComponentError, match=f"component 'code': .*{shard}: shard missing"):
            ComponentSet.open(sharded_paths)

    def test_a_tensor_that_its_shard_lacks_is_named(
        self, sharded_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        shard = _index(sharded_paths["code"])["weight_map"][EMBEDDING]
        edit_json(
            sharded_paths["code"] / "model.safetensors.index.json",
            lambda index: index["weight_map"].update(ghost=shard),
        )
        with pytest.raises(ComponentError, match=f"{shard}: tensor 'ghost' should be"):
            ComponentSet.open(sharded_paths)

    def test_a_tensor_that_the_index_leaves_out_is_named(
        self, sharded_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            sharded_paths["code"] / "model.safetensors.index.json",
            lambda index: index["weight_map"].pop("model.layers.0.mlp.up_proj.weight"),
        )
        with pytest.raises(ComponentError, match="'model.layers.0.mlp.up_proj.weight' is in this"):
            ComponentSet.open(sharded_paths)

    @pytest.mark.parametrize("weight_map", [None, [], {"a": 1}])
    def test_an_index_without_a_map_is_refused(
        self, sharded_paths: Paths, edit_json: Callable[..., None], weight_map: Any
    ) -> None:
        edit_json(
            sharded_paths["code"] / "model.safetensors.index.json",
            lambda index: index.update(weight_map=weight_map),
        )
        with pytest.raises(ComponentError, match="index.json: no usable 'weight_map'"):
            ComponentSet.open(sharded_paths)

    def test_a_shard_outside_the_directory_is_refused(
        self, sharded_paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        edit_json(
            sharded_paths["code"] / "model.safetensors.index.json",
            lambda index: index["weight_map"].update({EMBEDDING: "../web/model.safetensors"}),
        )
        with pytest.raises(ComponentError, match="lies outside the directory"):
            ComponentSet.open(sharded_paths)


class TestNames:
    def test_the_prefix_of_the_base_model_may_lack(
        self, saved: Callable[..., Path], tmp_path: Path
    ) -> None:
        paths = {name: saved(tmp_path / name, family="gpt2", seed=0) for name in ("a", "b")}

        def strip(state: dict[str, torch.Tensor]) -> None:
            for name in [*state]:
                state[name.removeprefix("transformer.")] = state.pop(name)

        _rewrite(paths["b"], strip)
        assert "wte.weight" in load_file(paths["b"] / "model.safetensors")
        components = ComponentSet.open(paths)
        assert "transformer.wte.weight" in components.tensors

    def test_buffers_that_old_releases_saved_are_left_out(
        self, saved: Callable[..., Path], tmp_path: Path
    ) -> None:
        paths = {name: saved(tmp_path / name, family="gpt-neox") for name in ("a", "b")}
        legacy = {
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
            "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
        }
        _rewrite(paths["b"], lambda state: state.update(legacy))
        components = ComponentSet.open(paths)
        assert not set(legacy) & set(components.tensors)

    def test_a_copy_of_a_tied_tensor_counts_once(self, paths: Paths) -> None:
        before = ComponentSet.open(paths)
        for path in paths.values():
            _rewrite(
                path, lambda state: state.update({"lm_head.weight": state[EMBEDDING].clone()})
            )
        after = ComponentSet.open(paths)
        assert after.tensors == before.tensors

    def test_either_name_of_a_tied_tensor_will_do(self, paths: Paths) -> None:
        before = ComponentSet.open(paths)
        _rewrite(
            paths["code"], lambda state: state.update({"lm_head.weight": state.pop(EMBEDDING)})
        )
        assert ComponentSet.open(paths).tensors == before.tensors


class TestDigests:
    def test_equal_content_has_equal_digests(self, paths: Paths, sharded_paths: Paths) -> None:
        digests = ComponentSet.open(paths).digests()
        assert len(set(digests.values())) == 3
        assert ComponentSet.open(sharded_paths).digests() == digests

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(
                _state(lambda state: state["model.norm.weight"][3].add_(1e-6)), id="one element"
            ),
            pytest.param(_config(pad_token_id=7), id="config"),
        ],
    )
    def test_other_content_has_another_digest(
        self, paths: Paths, change: Callable[[Path], None]
    ) -> None:
        before = ComponentSet.open(paths).digests()
        change(paths["code"])
        after = ComponentSet.open(paths).digests()
        assert [name for name in before if before[name] != after[name]] == ["code"]

    def test_the_release_that_wrote_a_config_does_not_count(
        self, paths: Paths, edit_json: Callable[..., None]
    ) -> None:
        before = ComponentSet.open(paths).digests()
        edit_json(
            paths["code"] / "config.json", lambda config: config.update(transformers_version="9")
        )
        assert ComponentSet.open(paths).digests() == before

    def test_a_cached_digest_saves_reading(
        self, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "digests.json"
        digests = ComponentSet.open(paths).digests(cache=cache)
        _state(lambda state: state["model.norm.weight"][3].add_(1.0))(paths["code"])
        components = ComponentSet.open(paths)
        read: list[str] = []
        monkeypatch.setattr(
            "optuna_demix.merging.checkpoints.tensor_reader.TensorReader.read_into",
            lambda reader, entry, start, target: read.append(entry.file.parent.name),
        )
        changed = components.digests(cache=cache)
        assert set(read) == {"code"}
        assert [name for name in digests if digests[name] != changed[name]] == ["code"]

    @pytest.mark.parametrize("content", ["", "[]", "[1]", '{"x": 1}', '{"x": {"files": []}}'])
    def test_a_broken_cache_is_an_empty_one(
        self, paths: Paths, tmp_path: Path, content: str
    ) -> None:
        cache = tmp_path / "digests.json"
        cache.write_text(content)
        components = ComponentSet.open(paths)
        assert components.digests(cache=cache) == components.digests()
        assert json.loads(cache.read_text()).keys() == {str(path) for path in paths.values()}
