"""What transformers loads is what is merged, whatever it makes of a checkpoint on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_sweep import OUTCOMES, examine, sweep, table
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, LiveModel, drift, load_whole
from tests.tiny_models import LLAMA

W = [0.2, 0.3, 0.5]
TOKENS = torch.arange(40).view(2, 20)
Paths = dict[str, Path]


def _state(path: Path) -> dict[str, torch.Tensor]:
    """Every parameter once."""
    model = AutoModelForCausalLM.from_pretrained(path)
    return {name: parameter.data for name, parameter in model.named_parameters()}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


# Experts that are stacked and fused, a router bias that stays in float32, a text model in the
# folder of a multimodal one (without experts: below), weights that are rescaled in place at the
# first forward pass.
@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [
        ("mixtral", "bfloat16"),
        ("deepseek_v3", "bfloat16"),
        pytest.param("qwen3_5_moe", "float32", marks=pytest.mark.slow),
        ("rwkv", "float32"),
    ],
)
def test_two_merges_are_what_transformers_would_load(
    model_type: str, dtype: str, tmp_path: Path
) -> None:
    assert examine(model_type, dtype, tmp_path)["outcome"] == "equal"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_causal_lm_is_wrong_or_ends_in_a_traceback() -> None:
    found = list(sweep([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]))
    bad = [entry for entry in found if entry["outcome"] in ("wrong", "crashed")]
    assert not bad
    equal = table(found).splitlines()[2 + OUTCOMES.index("equal")]
    assert all(int(count) >= 155 for count in equal.split("|")[2:4]), equal


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Three tiny mixtures of experts in bfloat16; do not change."""
    config = Qwen3MoeConfig(
        **{**LLAMA, "vocab_size": 64, "moe_intermediate_size": 8, "head_dim": 8},
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
    )
    root = tmp_path_factory.mktemp("experts")
    for seed, name in enumerate(("web", "code", "math")):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(root / name)
    return {path.name: path for path in sorted(root.iterdir())}


class TestExperts:
    def test_a_saved_proxy_has_the_format_of_its_components(
        self, experts: Paths, tmp_path: Path
    ) -> None:
        live = LiveModel(Arena.build(ComponentSet.open(experts), tmp_path / "a"))
        live.merge(W)
        live.save_pretrained(tmp_path / "proxy")
        saved = load_file(tmp_path / "proxy" / "model.safetensors")
        assert saved.keys() == load_file(experts["web"] / "model.safetensors").keys()
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "proxy")
        assert torch.equal(_logits(loaded), _logits(live.model))

    @pytest.mark.parametrize("method", ["linear", "ties", "karcher"])
    def test_one_component_alone_is_that_component(
        self, experts: Paths, tmp_path: Path, method: str
    ) -> None:
        from optuna_demix.merging import find_method

        chosen = find_method(method, {"density": 1.0} if method == "ties" else None)
        base = experts["math"] if method == "ties" else None
        components = ComponentSet.open(experts, base=base)
        arena = Arena.build(components, tmp_path / "a", method=chosen, block_size=128)
        live = LiveModel(arena, method=chosen)
        live.merge([float(name == "web") for name in experts])
        wanted = AutoModelForCausalLM.from_pretrained(experts["web"]).state_dict()
        for name, tensor in live.model.state_dict().items():
            torch.testing.assert_close(tensor, wanted[name], rtol=0.02, atol=1e-4)

    def test_a_whole_model_is_loaded_and_its_drift_known(
        self, experts: Paths, tmp_path: Path
    ) -> None:
        components = ComponentSet.open(experts, base=experts["math"])
        live = LiveModel(Arena.build(components, tmp_path / "a"))
        load_whole(components.components[0], live)
        first = AutoModelForCausalLM.from_pretrained(experts[components.names[0]])
        assert torch.equal(_logits(live.model), _logits(first))
        trained, base = (
            torch.cat([tensor.double().flatten() for tensor in _state(experts[name]).values()])
            for name in ("web", "math")
        )
        expected = (trained - base).norm() / (trained.norm() + base.norm())
        assert drift(components)["web"] == pytest.approx(float(expected), rel=1e-9)

    def test_a_missing_expert_is_named(self, experts: Paths, tmp_path: Path) -> None:
        state = load_file(experts["code"] / "model.safetensors")
        del state["model.layers.0.mlp.experts.2.down_proj.weight"]
        (tmp_path / "code").mkdir()
        save_file(state, tmp_path / "code" / "model.safetensors")
        config = (experts["code"] / "config.json").read_text()
        (tmp_path / "code" / "config.json").write_text(config)
        with pytest.raises(ComponentError, match=r"'code': .*experts.down_proj' has shape \[3, "):
            ComponentSet.open({**experts, "code": tmp_path / "code"})


class TableLlama(LlamaForCausalLM):
    """A Llama with a table of integers, and something in float32, in its checkpoint."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.register_buffer("table", torch.arange(3))
        self.scale = torch.nn.Parameter(torch.ones(config.n_scales, dtype=torch.float32))


class TableLlamaConfig(LlamaConfig):
    model_type = "table-llama"
    n_scales: int = 2


TableLlama.config_class = TableLlamaConfig
AutoConfig.register("table-llama", TableLlamaConfig)
AutoModelForCausalLM.register(TableLlamaConfig, TableLlama)


def _tables(
    root: Path,
    change: Callable[[TableLlama, int], None] = lambda model, number: None,
    **fields: Any,
) -> Paths:
    paths = {}
    for number, name in enumerate(("a", "b")):
        torch.manual_seed(number)
        model = TableLlama._from_config(
            TableLlamaConfig(**LLAMA, vocab_size=64, **fields), dtype=torch.bfloat16
        )
        change(model, number)
        model.save_pretrained(root / name)
        paths[name] = root / name
    return paths


class TestTypes:
    def test_each_tensor_keeps_its_type(self, tmp_path: Path) -> None:
        def change(model: TableLlama, number: int) -> None:
            model.scale.data.fill_(1.0 + number * 2**-20)  # lost in bfloat16
            model.table.fill_(7)

        arena = Arena.build(ComponentSet.open(_tables(tmp_path, change)), tmp_path / "x.arena")
        assert [part.dtype for part in arena.parts] == [torch.bfloat16, torch.float32]
        arena.verify()
        live = LiveModel(Arena.open(arena.path))
        live.merge([0.5, 0.5])
        assert live.model.scale.tolist() == [1.0 + 2**-21] * 2
        assert live.model.table.tolist() == [7, 7, 7]
        assert live.model.table.dtype == torch.int64
        assert live.model.lm_head.weight.dtype == torch.bfloat16

    def test_what_is_always_float32_does_not_say_how_the_rest_is_stored(
        self, tmp_path: Path
    ) -> None:
        components = ComponentSet.open(_tables(tmp_path, n_scales=10_000))
        assert components.dtype == torch.bfloat16

    def test_tables_that_differ_are_named(self, tmp_path: Path) -> None:
        paths = _tables(tmp_path, lambda model, number: model.table.fill_(number))
        with pytest.raises(ComponentError, match=r"'b': .*'table' cannot be averaged and differs"):
            Arena.build(ComponentSet.open(paths), tmp_path / "x.arena")
        assert not (tmp_path / "x.arena").exists()

    def test_a_killed_build_goes_on_in_the_second_part(self, tmp_path: Path) -> None:
        paths = _tables(tmp_path, lambda model, number: model.scale.data.fill_(number))
        components = ComponentSet.open(paths)
        whole = Arena.build(components, tmp_path / "whole.arena", block_size=64)

        def kill(done: int, total: int) -> None:
            if done == total - 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Arena.build(components, tmp_path / "x.arena", block_size=64, progress=kill)
        done: list[int] = []
        Arena.build(
            components,
            tmp_path / "x.arena",
            block_size=64,
            progress=lambda number, total: done.append(number),
        )
        assert done == [whole.n_blocks - 1, whole.n_blocks]
        assert (tmp_path / "x.arena").read_bytes() == whole.path.read_bytes()

    def test_a_stored_type_gives_way_to_the_models(self, tmp_path: Path) -> None:
        paths = _tables(tmp_path)
        state = load_file(paths["b"] / "model.safetensors")
        state["model.norm.weight"] = state["model.norm.weight"].float() + 2**-20
        save_file(state, paths["b"] / "model.safetensors")
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "x.arena"))
        live.merge([0.0, 1.0])
        assert live.model.model.norm.weight.tolist() == [1.0] * 16


class RememberingLlama(LlamaForCausalLM):
    """A Llama that keeps something it computed from its weights at the first forward pass."""

    _kept: dict[str, torch.Tensor] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        memory = self._kept if self.config.where == "class" else vars(self)
        if "seen" not in memory:
            memory["seen"] = self.lm_head.weight.sum()
        output.logits = output.logits + memory["seen"]
        return output


class RememberingLlamaConfig(LlamaConfig):
    model_type = "remembering-llama"
    where: str = "model"


RememberingLlama.config_class = RememberingLlamaConfig
AutoConfig.register("remembering-llama", RememberingLlamaConfig)
AutoModelForCausalLM.register(RememberingLlamaConfig, RememberingLlama)


class TestDerivedState:
    @pytest.fixture
    def arena(self, tmp_path: Path) -> Arena:
        for number, name in enumerate(("a", "b")):
            torch.manual_seed(number)
            config = RememberingLlamaConfig(**LLAMA, vocab_size=64, initializer_range=0.3)
            RememberingLlama(config).save_pretrained(tmp_path / name)
        paths = {name: tmp_path / name for name in ("a", "b")}
        return Arena.build(ComponentSet.open(paths), tmp_path / "x.arena")

    def test_what_a_model_remembers_is_forgotten_at_each_merge(self, arena: Arena) -> None:
        live = LiveModel(arena)
        for w in ([0.5, 0.5], [1.0, 0.0]):
            live.merge(w)
            answer = _logits(live.model)
        fresh = LiveModel(arena)
        fresh.merge([1.0, 0.0])
        assert torch.equal(answer, _logits(fresh.model))

    def test_without_the_self_test_it_is_not(self, arena: Arena) -> None:
        live = LiveModel(arena, self_test=False)
        answers = []
        for w in ([0.5, 0.5], [1.0, 0.0]):
            live.merge(w)
            answers.append(_logits(live.model))
        fresh = LiveModel(arena, self_test=False)
        fresh.merge([1.0, 0.0])
        assert not torch.equal(answers[1], _logits(fresh.model))

    def test_a_model_that_cannot_be_made_to_forget_is_refused(
        self, arena: Arena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(RememberingLlamaConfig, "where", "class")
        monkeypatch.setattr(RememberingLlama, "_kept", {"seen": torch.zeros(())})
        LiveModel(arena)  # remembers nothing of its own
        calls: list[int] = []
        forward = LlamaForCausalLM.forward

        def counting(model: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            output = forward(model, *args, **kwargs)
            output.logits = output.logits + len(calls)
            return output

        monkeypatch.setattr(LlamaForCausalLM, "forward", counting)
        with pytest.raises(ComponentError, match="RememberingLlama answers otherwise when it is"):
            LiveModel(arena)

    def test_a_model_that_cannot_be_run_is_refused(
        self, arena: Arena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LlamaForCausalLM, "forward", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ComponentError, match=r"cannot be run on token ids alone \(division"):
            LiveModel(arena)


def test_the_text_model_of_a_multimodal_folder_is_saved_as_such(tmp_path: Path) -> None:
    assert examine("qwen3_5", "float32", tmp_path)["outcome"] == "equal"
    live = LiveModel(Arena.open(tmp_path / "x.arena"))
    live.merge(W)
    live.save_pretrained(tmp_path / "proxy")
    config = json.loads((tmp_path / "proxy" / "config.json").read_text())
    assert config["model_type"] == "qwen3_5_text"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "proxy")
    assert torch.equal(_logits(loaded), _logits(live.model))
