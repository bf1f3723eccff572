"""A live model is the model that a hand-made average would be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import AutoTokenizer as HubTokenizer

from optuna_demix.errors import ComponentError
from optuna_demix.merging import Arena, ComponentSet, LiveModel, MergeMethod
from optuna_demix.merging.methods.plan import MergePlan
from optuna_demix.merging.methods.preparation import Preparation
from tests.tiny_models import LLAMA

Paths = dict[str, Path]
FAMILIES = ["llama-tied", "llama-untied", "gpt-neox", "gpt2"]
W = [0.2, 0.3, 0.5]
TOKENS = torch.arange(40).view(2, 20)


def _state(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).state_dict()


def _average(paths: Paths, w: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weighted average of whole state dicts in float64."""
    total: dict[str, torch.Tensor] = {}
    for weight, path in zip(w, paths.values(), strict=True):
        for name, tensor in _state(path, dtype).items():
            total[name] = total.get(name, 0.0) + weight * tensor.double()
    return total


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.fixture(scope="session")
def live_of(
    family_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[LiveModel, Paths]]:
    """Return a live model of three components; made once a session."""
    made: dict[Any, tuple[LiveModel, Paths]] = {}

    def make(
        family: str = "llama-tied", dtype: torch.dtype = torch.float32, sharded: bool = False
    ) -> tuple[LiveModel, Paths]:
        key = (family, dtype, sharded)
        if key not in made:
            paths = family_of(family, dtype, sharded).paths
            file = tmp_path_factory.mktemp("live") / "x.arena"
            arena = Arena.build(ComponentSet.open(paths), file, block_size=256)
            made[key] = LiveModel(arena), paths
        return made[key]

    return make


@pytest.mark.parametrize("family", FAMILIES)
class TestAgainstStateDicts:
    @pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
    def test_float32_parameters_are_the_average(
        self, live_of: Callable[..., Any], family: str, sharded: bool
    ) -> None:
        live, paths = live_of(family, torch.float32, sharded)
        live.merge(W)
        average = _average(paths, W, torch.float32)
        state = live.model.state_dict()
        assert state.keys() == average.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(tensor.double(), average[name], rtol=0, atol=3e-7)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_parameters_are_the_average_rounded(
        self, live_of: Callable[..., Any], family: str, dtype: torch.dtype
    ) -> None:
        live, paths = live_of(family, dtype)
        live.merge(W)
        average = _average(paths, W, dtype)
        names = live.model.state_dict().keys()
        merged = torch.cat([live.model.state_dict()[name].view(-1) for name in names])
        exact = torch.cat([average[name].view(-1) for name in names])
        assert merged.dtype == dtype
        assert (merged == exact.to(dtype)).double().mean() >= 0.99
        unit = torch.finfo(dtype).eps * exact.abs()
        assert bool(((merged.double() - exact).abs() <= unit + 1e-6).all())

    def test_logits_are_those_of_the_average_saved_and_loaded(
        self, live_of: Callable[..., Any], family: str, tmp_path: Path
    ) -> None:
        live, paths = live_of(family)
        live.merge(W)
        by_hand = AutoModelForCausalLM.from_pretrained(paths["web"])
        by_hand.load_state_dict(
            {name: t.float() for name, t in _average(paths, W, torch.float32).items()}
        )
        by_hand.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(_logits(live.model), _logits(loaded), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
class TestBits:
    @pytest.mark.parametrize("k", range(3))
    def test_one_hot_weights_give_the_component(
        self, live_of: Callable[..., Any], family: str, dtype: torch.dtype, k: int
    ) -> None:
        live, paths = live_of(family, dtype)
        live.merge(np.eye(3)[k])
        component = AutoModelForCausalLM.from_pretrained([*paths.values()][k], dtype=dtype)
        state = live.model.state_dict()
        for name, tensor in component.state_dict().items():
            assert torch.equal(state[name], tensor), name
        assert torch.equal(_logits(live.model), _logits(component))

    def test_what_is_saved_is_what_was_live(
        self, live_of: Callable[..., Any], family: str, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        live, _ = live_of(family, dtype)
        live.merge(W)
        live.save_pretrained(tmp_path / "proxy")
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "proxy")
        assert loaded.dtype == dtype
        assert torch.equal(_logits(live.model), _logits(loaded))
        tokenizer = HubTokenizer.from_pretrained(tmp_path / "proxy")
        assert tokenizer.get_vocab() == live.tokenizer.get_vocab()

    def test_repeated_merges_do_not_drift(
        self, live_of: Callable[..., Any], family: str, dtype: torch.dtype
    ) -> None:
        live, _ = live_of(family, dtype)
        live.merge(W)
        first = _logits(live.model)
        for number in range(5):
            live.merge([number, 1.0 - number, 0.3])
        live.merge(W)
        assert torch.equal(_logits(live.model), first)


@given(w=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_any_weights_give_their_average(live_of: Callable[..., Any], w: list[float]) -> None:
    live, paths = live_of("gpt2")
    live.merge(w)
    name = "transformer.h.1.mlp.c_fc.weight"
    expected = sum(
        weight * load_file(path / "model.safetensors")[name].double()
        for weight, path in zip(w, paths.values(), strict=True)
    )
    merged = live.model.state_dict()[name].double()
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-6)


class TestOneBuffer:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_parameters_are_views_that_stay(
        self, live_of: Callable[..., Any], family: str
    ) -> None:
        live, _ = live_of(family)
        storages = {tensor.untyped_storage().data_ptr() for tensor in live.model.parameters()}
        places = {name: tensor.data_ptr() for name, tensor in live.model.named_parameters()}
        live.merge(W)
        assert len(storages) == 1
        assert all(place % 64 == 0 for place in places.values())
        assert places == {name: t.data_ptr() for name, t in live.model.named_parameters()}

    def test_tied_weights_stay_one_tensor(self, live_of: Callable[..., Any]) -> None:
        tied, _ = live_of("llama-tied")
        untied, _ = live_of("llama-untied")
        for live, same in ((tied, True), (untied, False)):
            live.merge(W)
            model = live.model
            head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
            assert (head.data_ptr() == embedding.data_ptr()) is same
            assert torch.equal(head, embedding) is same

    def test_the_model_is_ready_for_scoring(self, live_of: Callable[..., Any]) -> None:
        live, _ = live_of("llama-tied")
        assert not live.model.training
        assert not any(parameter.requires_grad for parameter in live.model.parameters())
        assert live.names == ("web", "code", "math")
        assert live.tokenizer("word1 word2").input_ids == [3, 4]
        assert live.tokenizer is live.tokenizer

    def test_a_model_never_merged_cannot_score(self, arena: Arena, tmp_path: Path) -> None:
        live = LiveModel(arena)
        assert bool(_logits(live.model).isnan().all())
        with pytest.raises(ComponentError, match="merge a mixture first"):
            live.save_pretrained(tmp_path / "proxy")
        assert not (tmp_path / "proxy").exists()

    def test_the_model_may_have_another_dtype_than_the_arena(
        self, family_of: Callable[..., Any], tmp_path: Path
    ) -> None:
        paths = family_of("gpt-neox", torch.bfloat16).paths
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "a"), dtype="float32")
        live.merge(W)
        for name, tensor in _average(paths, W, torch.bfloat16).items():
            assert live.model.state_dict()[name].dtype == torch.float32
            torch.testing.assert_close(
                live.model.state_dict()[name].double(), tensor, rtol=0, atol=1e-6
            )

    def test_a_merge_may_run_in_inference_mode(self, live_of: Callable[..., Any]) -> None:
        live, _ = live_of("llama-tied")
        live.merge(W)
        expected = _logits(live.model)
        with torch.inference_mode():
            live.merge([1.0, 0.0, 0.0])
            live.merge(W)
        assert torch.equal(_logits(live.model), expected)

    def test_the_progress_bars_of_transformers_are_left_as_they_were(
        self, arena: Arena, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from transformers.utils import logging

        logging.enable_progress_bar()
        try:
            live = LiveModel(arena)
            live.merge(W)
            live.save_pretrained(tmp_path / "proxy")
            assert logging.is_progress_bar_enabled()
        finally:
            logging.disable_progress_bar()
        assert capfd.readouterr() == ("", "")


class BufferedLlama(LlamaForCausalLM):
    """A Llama that scales its logits by a persistent buffer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.register_buffer("temperature", torch.ones(3))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.temperature.sum()
        return output


class BufferedLlamaConfig(LlamaConfig):
    model_type = "buffered-llama"


BufferedLlama.config_class = BufferedLlamaConfig
AutoConfig.register("buffered-llama", BufferedLlamaConfig)
AutoModelForCausalLM.register(BufferedLlamaConfig, BufferedLlama)


class TestNamesAndBuffers:
    def test_persistent_buffers_are_merged_with_the_parameters(self, tmp_path: Path) -> None:
        config = BufferedLlamaConfig(**LLAMA, vocab_size=64)
        paths = {}
        for number, name in enumerate(("a", "b")):
            model = BufferedLlama(config)
            model.temperature.fill_(number + 1.0)
            model.save_pretrained(tmp_path / name)
            paths[name] = tmp_path / name
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "arena"))
        live.merge([0.5, 0.5])
        assert live.model.temperature.tolist() == [1.5] * 3
        live.merge([0.0, 1.0])
        second = AutoModelForCausalLM.from_pretrained(paths["b"])
        assert torch.equal(_logits(live.model), _logits(second))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_buffers_outside_the_checkpoint_are_those_of_from_pretrained(
        self, live_of: Callable[..., Any], family: str
    ) -> None:
        live, paths = live_of(family, torch.bfloat16)
        live.merge(W)
        loaded = AutoModelForCausalLM.from_pretrained(paths["web"], dtype=torch.bfloat16)
        buffers = dict(live.model.named_buffers())
        assert buffers.keys() == dict(loaded.named_buffers()).keys()
        for name, buffer in loaded.named_buffers():
            assert torch.equal(buffers[name], buffer)
            assert buffers[name].dtype == buffer.dtype

    def test_checkpoints_without_the_base_models_prefix_load(
        self, saved: Callable[..., Path], tmp_path: Path
    ) -> None:
        paths = {
            name: saved(tmp_path / name, family="gpt2", seed=seed)
            for seed, name in enumerate(("a", "b"))
        }
        for path in paths.values():
            state = load_file(path / "model.safetensors")
            bare = {name.removeprefix("transformer."): t for name, t in state.items()}
            bare["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)  # as early GPT-2 files have it
            save_file(bare, path / "model.safetensors")
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "arena"))
        live.merge([0.0, 1.0])
        loaded = AutoModelForCausalLM.from_pretrained(paths["b"])
        assert torch.equal(_logits(live.model), _logits(loaded))

    def test_an_arena_that_does_not_fit_the_model_is_refused(
        self, arena: Arena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from optuna_demix.merging.live import building

        def build(config: Any, *args: Any, **kwargs: Any) -> Any:
            config.num_hidden_layers = 3
            return original(config, *args, **kwargs)

        original = building.build_skeleton
        monkeypatch.setattr(building, "build_skeleton", build)
        with pytest.raises(
            ComponentError, match="'model.layers.2.input_layernorm.weight' of the model does not"
        ):
            LiveModel(arena)

    def test_the_generation_config_of_the_components_is_kept(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        for path in paths.values():
            (path / "generation_config.json").write_text(
                json.dumps({"eos_token_id": [1, 5], "max_new_tokens": 7})
            )
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "a"))
        assert live.model.generation_config.eos_token_id == [1, 5]
        assert live.model.generation_config.max_new_tokens == 7

    def test_components_without_a_tokenizer_merge_but_do_not_tokenize(
        self, paths: Paths, tmp_path: Path
    ) -> None:
        for path in paths.values():
            (path / "tokenizer.json").unlink()
        live = LiveModel(Arena.build(ComponentSet.open(paths), tmp_path / "a"))
        live.merge(W)
        live.save_pretrained(tmp_path / "proxy")
        assert not (tmp_path / "proxy" / "tokenizer.json").exists()
        with pytest.raises(ComponentError, match="the components came without a tok"):
            _ = live.tokenizer


class TestBadInput:
    @pytest.mark.parametrize(
        ("w", "message"),
        [
            pytest.param([0.5, 0.5], r"shape \(2,\); give one each for web, code, math", id="few"),
            pytest.param([[0.2, 0.3, 0.5]], r"shape \(1, 3\)", id="nested"),
            pytest.param(0.5, r"shape \(\)", id="scalar"),
            pytest.param([0.5, float("nan"), 0.5], "component 'code' is nan", id="NaN"),
            pytest.param([0.5, 0.5, float("inf")], "component 'math' is inf", id="infinity"),
            pytest.param(["a", "b", "c"], "not numbers", id="text"),
            pytest.param([0.5, None, 0.5], "component 'code' is nan|not numbers", id="None"),
        ],
    )
    def test_bad_weights_are_refused_and_the_model_stays(
        self, live_of: Callable[..., Any], w: Any, message: str
    ) -> None:
        live, _ = live_of()
        live.merge(W)
        before = _logits(live.model)
        with pytest.raises(ComponentError, match=message):
            live.merge(w)
        assert torch.equal(_logits(live.model), before)

    def test_an_unknown_method_is_refused(self, arena: Arena) -> None:
        with pytest.raises(ComponentError, match="unknown merge method 'soup'; use one of"):
            LiveModel(arena, method="soup")

    def test_an_unusable_dtype_is_refused(self, arena: Arena) -> None:
        with pytest.raises(ComponentError, match="dtype 'int8' cannot hold merged weights"):
            LiveModel(arena, dtype="int8")

    def test_a_method_of_ones_own_needs_no_registry(self, arena: Arena) -> None:
        halved = MergeMethod(
            "halved", {}, Preparation(), lambda w, facts, tensors: MergePlan(w / 2)
        )
        live, linear = LiveModel(arena, method=halved), LiveModel(arena)
        live.merge(W)
        linear.merge(W)
        for ours, theirs in zip(live.model.parameters(), linear.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs / 2)


class TestSaving:
    def test_a_directory_in_use_is_left_alone(
        self, live_of: Callable[..., Any], tmp_path: Path
    ) -> None:
        live, _ = live_of()
        live.merge(W)
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(ComponentError, match="is there already; choose another directory or"):
            live.save_pretrained(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_overwriting_replaces_the_directory_as_a_whole(
        self, live_of: Callable[..., Any], tmp_path: Path
    ) -> None:
        live, _ = live_of()
        target = tmp_path / "proxy"
        target.mkdir()
        live.merge([1.0, 0.0, 0.0])
        live.save_pretrained(target)  # empty is as good as missing
        (target / "note").write_text("old")
        live.merge(W)
        live.save_pretrained(target, overwrite=True)
        assert not (target / "note").exists()
        loaded = AutoModelForCausalLM.from_pretrained(target)
        assert torch.equal(_logits(loaded), _logits(live.model))
        assert [path.name for path in tmp_path.iterdir()] == ["proxy"]

    def test_a_symlink_to_a_directory_stays_one(
        self, live_of: Callable[..., Any], tmp_path: Path
    ) -> None:
        live, _ = live_of()
        live.merge(W)
        (tmp_path / "far").mkdir()
        (tmp_path / "proxy").symlink_to("far")
        live.save_pretrained(tmp_path / "proxy")
        assert (tmp_path / "proxy").is_symlink()
        assert (tmp_path / "far" / "config.json").is_file()

    def test_a_failed_save_leaves_nothing(
        self, live_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live, _ = live_of()
        live.merge(W)

        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(live.tokenizer, "save_pretrained", fail)
        with pytest.raises(ComponentError, match="proxy: .*No space left on device"):
            live.save_pretrained(tmp_path / "proxy")
        assert not [*tmp_path.iterdir()]
