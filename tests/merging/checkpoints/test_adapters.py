"""LoRA adapters are components: the base plus their product, exactly."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from optuna_demix.errors import ComponentError
from optuna_demix.merging import (
    Arena,
    ComponentSet,
    LiveModel,
    MergeMethod,
    drift,
    find_method,
    load_whole,
)

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
RANK = 2


def _factors(weight: torch.Tensor, *, seed: int = 0, rank: int = RANK) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n_out, n_in = weight.shape
    return {
        "lora_A": torch.randn(rank, n_in, generator=generator),
        "lora_B": torch.randn(n_out, rank, generator=generator),
    }


def save_adapter(
    directory: Path,
    factors: dict[str, dict[str, torch.Tensor]],
    *,
    whole: dict[str, torch.Tensor] | None = None,
    **fields: Any,
) -> Path:
    """Write an adapter as PEFT does."""
    directory.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "someone/base",
        "r": RANK,
        "lora_alpha": 6,
        "target_modules": sorted({module.rpartition(".")[2] for module in factors}),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_dropout": 0.1,
        "use_rslora": False,
        "use_dora": False,
        **fields,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"base_model.model.{module}.{factor}.weight": tensor.contiguous()
        for module, pair in factors.items()
        for factor, tensor in pair.items()
    }
    tensors |= {f"base_model.model.{name}": tensor for name, tensor in (whole or {}).items()}
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


@pytest.fixture
def base(paths: dict[str, Path]) -> Path:
    return paths["web"]


@pytest.fixture
def weights(base: Path) -> dict[str, torch.Tensor]:
    return load_file(base / "model.safetensors")


def _live(components: ComponentSet, folder: Path, **options: Any) -> LiveModel:
    return LiveModel(Arena.build(components, folder / "x.arena", block_size=256, **options))


def _merged(live: LiveModel, *w: float) -> dict[str, torch.Tensor]:
    live.merge(list(w))
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


def test_a_mixture_of_adapters_adds_their_products(
    base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    one = {Q: _factors(weights[f"{Q}.weight"], seed=1)}
    two = {
        Q: _factors(weights[f"{Q}.weight"], seed=2),
        DOWN: _factors(weights[f"{DOWN}.weight"], seed=3),
    }
    paths = {
        "one": save_adapter(tmp_path / "one", one),
        "two": save_adapter(tmp_path / "two", two, use_rslora=True),
    }
    merged = _merged(_live(ComponentSet.open(paths, base=base), tmp_path), 0.25, 0.75)
    products = {
        Q: 0.25 * 3 * one[Q]["lora_B"] @ one[Q]["lora_A"]
        + 0.75 * (6 / math.sqrt(RANK)) * two[Q]["lora_B"] @ two[Q]["lora_A"],
        DOWN: 0.75 * (6 / math.sqrt(RANK)) * two[DOWN]["lora_B"] @ two[DOWN]["lora_A"],
    }
    for name, tensor in weights.items():
        expected = tensor + products.get(name.removesuffix(".weight"), 0.0)
        torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-5)
    # Averaging the factors would be something else.
    averaged = 0.25 * one[Q]["lora_B"] + 0.75 * two[Q]["lora_B"]
    assert not torch.allclose(products[Q], averaged @ one[Q]["lora_A"], atol=0.5)


def test_adapters_stand_beside_whole_models(
    paths: dict[str, Path], base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    factors = {Q: _factors(weights[f"{Q}.weight"])}
    adapter = save_adapter(tmp_path / "adapter", factors)
    components = ComponentSet.open({"code": paths["code"], "lora": adapter}, base=base)
    product = 3 * factors[Q]["lora_B"] @ factors[Q]["lora_A"]
    live = _live(components, tmp_path)
    merged = _merged(live, 0.0, 1.0)
    torch.testing.assert_close(merged[f"{Q}.weight"], weights[f"{Q}.weight"] + product)
    assert torch.equal(merged[f"{DOWN}.weight"], weights[f"{DOWN}.weight"])
    load_whole(components.components[1], live)
    assert torch.equal(live.model.state_dict()[f"{Q}.weight"], merged[f"{Q}.weight"])
    moved = product.norm() / (
        torch.cat([merged[name].flatten() for name in weights]).norm()
        + torch.cat([tensor.flatten() for tensor in weights.values()]).norm()
    )
    assert drift(components)["lora"] == pytest.approx(float(moved), rel=1e-4)


@pytest.mark.parametrize(
    "method",
    [find_method("task_arithmetic"), find_method("ties", {"density": 0.5})],
    ids=lambda method: method.name,
)
def test_other_methods_see_whole_models(
    base: Path, weights: dict[str, torch.Tensor], tmp_path: Path, method: MergeMethod
) -> None:
    factors = {name: {Q: _factors(weights[f"{Q}.weight"], seed=i)} for i, name in enumerate("ab")}
    adapters = {name: save_adapter(tmp_path / name, pair) for name, pair in factors.items()}
    whole = {}
    for name, pair in factors.items():
        whole[name] = tmp_path / f"whole-{name}"
        shutil.copytree(base, whole[name])
        product = 3 * pair[Q]["lora_B"] @ pair[Q]["lora_A"]
        state = {**weights, f"{Q}.weight": weights[f"{Q}.weight"] + product}
        save_file(state, whole[name] / "model.safetensors")
    merged = []
    for kind, paths in (("adapters", adapters), ("whole", whole)):
        components = ComponentSet.open(paths, base=base)
        (tmp_path / kind).mkdir()
        arena = Arena.build(components, tmp_path / kind / "x.arena", method=method)
        merged.append(_merged(LiveModel(arena, method=method), 0.4, 0.6))
    for name in weights:
        torch.testing.assert_close(merged[0][name], merged[1][name], rtol=1e-5, atol=1e-5)


def test_the_arena_rounds_once(saved: Callable[..., Path], tmp_path: Path) -> None:
    base = saved(tmp_path / "base", dtype=torch.bfloat16)
    weights = load_file(base / "model.safetensors")
    factors = {Q: _factors(weights[f"{Q}.weight"])}
    adapter = save_adapter(tmp_path / "adapter", factors)
    components = ComponentSet.open({"lora": adapter}, base=base)
    exact = weights[f"{Q}.weight"].float() + 3 * factors[Q]["lora_B"] @ factors[Q]["lora_A"]
    for dtype in (torch.bfloat16, torch.float32):
        arena = Arena.build(components, tmp_path / "x.arena", dtype=dtype)
        merged = _merged(LiveModel(arena), 1.0)[f"{Q}.weight"]
        torch.testing.assert_close(
            merged, exact.to(dtype), rtol=1e-6 if dtype.itemsize > 2 else 0.008, atol=1e-6
        )


def test_conv1d_factors_are_transposed(saved: Callable[..., Path], tmp_path: Path) -> None:
    base = saved(tmp_path / "base", family="gpt2")
    module = "transformer.h.0.attn.c_attn"
    weights = load_file(base / "model.safetensors")
    weight = weights[f"{module}.weight"]  # (in, out)
    factors = {module: _factors(weight.T)}
    whole = {f"{module}.bias": torch.randn(weight.shape[1])}
    adapter = save_adapter(
        tmp_path / "adapter", factors, whole=whole, fan_in_fan_out=True, bias="lora_only"
    )
    merged = _merged(_live(ComponentSet.open({"lora": adapter}, base=base), tmp_path), 1.0)
    product = 3 * (factors[module]["lora_B"] @ factors[module]["lora_A"]).T
    torch.testing.assert_close(merged[f"{module}.weight"], weight + product)
    assert torch.equal(merged[f"{module}.bias"], whole[f"{module}.bias"])


def test_modules_that_were_saved_replace_the_base_s(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    base = saved(tmp_path / "base", family="llama-untied", dtype=torch.bfloat16)
    weights = load_file(base / "model.safetensors")
    head = torch.randn(weights["lm_head.weight"].shape)  # in float32, as PEFT trains it
    factors = {Q: _factors(weights[f"{Q}.weight"])}
    adapter = save_adapter(
        tmp_path / "adapter",
        factors,
        whole={"lm_head.weight": head},
        modules_to_save=["lm_head"],
    )
    merged = _merged(_live(ComponentSet.open({"lora": adapter}, base=base), tmp_path), 1.0)
    assert torch.equal(merged["lm_head.weight"], head.bfloat16())


def test_alpha_and_rank_may_differ_by_module(
    base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    factors = {
        Q: _factors(weights[f"{Q}.weight"], rank=4),
        DOWN: _factors(weights[f"{DOWN}.weight"]),
    }
    adapter = save_adapter(
        tmp_path / "adapter",
        factors,
        rank_pattern={"layers.0.self_attn.q_proj": 4},
        alpha_pattern={"self_attn.q_proj": 16, "down_proj": 2},
    )
    merged = _merged(_live(ComponentSet.open({"lora": adapter}, base=base), tmp_path), 1.0)
    for module, scale in ((Q, 4.0), (DOWN, 1.0)):
        product = scale * factors[module]["lora_B"] @ factors[module]["lora_A"]
        torch.testing.assert_close(
            merged[f"{module}.weight"], weights[f"{module}.weight"] + product
        )


def test_the_tokenizer_is_the_adapter_s_or_the_base_s(
    base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", {Q: _factors(weights[f"{Q}.weight"])})
    components = ComponentSet.open({"lora": adapter}, base=base)
    assert components.config_path == base / "config.json"
    assert _live(components, tmp_path).tokenizer.unk_token == "<unk>"
    (base / "tokenizer.json").rename(adapter / "tokenizer.json")
    (base / "tokenizer_config.json").rename(adapter / "tokenizer_config.json")
    components = ComponentSet.open({"lora": adapter}, base=base)
    assert _live(components, tmp_path).tokenizer.unk_token == "<unk>"


def test_digests_follow_adapter_and_base(
    base: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    def digests() -> dict[str, str]:
        return ComponentSet.open(paths, base=base).digests(cache=tmp_path / "digests.json")

    pair = _factors(weights[f"{Q}.weight"])
    paths = {name: save_adapter(tmp_path / name, {Q: pair}) for name in ("a", "b")}
    before = digests()
    assert before["a"] == before["b"] and digests() == before
    shutil.rmtree(paths["b"])
    save_adapter(paths["b"], {Q: pair}, lora_alpha=7)
    after = digests()
    assert after["a"] == before["a"] and after["b"] != before["b"]
    state = {**weights, "model.norm.weight": weights["model.norm.weight"] + 1}
    save_file(state, base / "model.safetensors")
    assert digests()["a"] != before["a"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "'use_dora' is True"),
        ({"lora_bias": True}, "'lora_bias' is True"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights' is 'pissa'"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "'layer_replication' is"),
        ({"target_parameters": ["experts.gate"]}, "'target_parameters' is"),
        ({"invented_by_next_year": 3}, "'invented_by_next_year' is 3"),
        ({"lora_alpha": None}, "'lora_alpha'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_plain_lora_is_refused(
    base: Path,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    fields: dict[str, Any],
    said: str,
) -> None:
    adapter = save_adapter(tmp_path / "adapter", {Q: _factors(weights[f"{Q}.weight"])}, **fields)
    with pytest.raises(ComponentError) as caught:
        ComponentSet.open({"lora": adapter}, base=base)
    message = str(caught.value)
    assert message.startswith(f"component 'lora': {adapter / 'adapter_config.json'}: ")
    assert said in message and "merge_and_unload" in message and "\n" not in message


@pytest.mark.parametrize(
    ("factors", "whole", "said"),
    [
        ({Q: (2, 2)}, {}, "'base_model.model.{Q}.lora_A.weight' has shape"),
        ({"model.layers.9.self_attn.q_proj": (16, 16)}, {}, "has no place in LlamaForCausalLM"),
        ({}, {"lm_head.weight": (64, 16)}, "ties"),
        ({}, {"model.norm.lora_magnitude_vector": (16,)}, "has no place in"),
        ({}, {f"{Q}.lora_A.weight": (2, 16)}, "without 'lora_B'"),
        ({}, {}, "no tensors"),
    ],
    ids=["other shape", "other layer", "tied", "unknown factor", "half a pair", "nothing"],
)
def test_weights_that_do_not_fit_the_base_are_refused(
    base: Path,
    tmp_path: Path,
    factors: dict[str, tuple[int, int]],
    whole: dict[str, tuple[int, ...]],
    said: str,
) -> None:
    adapter = save_adapter(
        tmp_path / "adapter",
        {module: _factors(torch.empty(shape)) for module, shape in factors.items()},
        whole={name: torch.zeros(shape) for name, shape in whole.items()},
    )
    with pytest.raises(ComponentError) as caught:
        ComponentSet.open({"lora": adapter}, base=base)
    assert str(caught.value).startswith("component 'lora': ")
    assert said.format(Q=Q) in str(caught.value)


def test_an_adapter_needs_its_base(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", {Q: _factors(weights[f"{Q}.weight"])})
    with pytest.raises(ComponentError) as caught:
        ComponentSet.open({"lora": adapter})
    assert str(caught.value).startswith("component 'lora': ")
    assert "adapter of 'someone/base'" in str(caught.value) and "'base'" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama-untied", {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm"]}),
        ("llama-untied", {"target_modules": "all-linear", "use_rslora": True}),
        ("llama-untied", {"target_modules": ["embed_tokens", "v_proj"]}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    ],
    ids=["modules to save", "rslora", "embeddings", "Conv1D with biases"],
)
def test_peft_merges_the_same_model(
    saved: Callable[..., Path], tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = saved(tmp_path / "base", family=family)
    config = peft.LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(tmp_path / "adapter")
    theirs = model.merge_and_unload().state_dict()
    components = ComponentSet.open({"lora": tmp_path / "adapter"}, base=base)
    ours = _merged(_live(components, tmp_path), 1.0)
    assert ours.keys() == theirs.keys()
    changed = 0
    before = load_file(base / "model.safetensors")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-6)
        changed += not torch.equal(tensor, before.get(name, tensor))
    assert changed > 1
