"""A live model on several devices is the one on a single device.

Two places on the CPU, ``cpu:0`` and ``cpu:1``, have buffers, merges and hooks of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import RwkvConfig, RwkvForCausalLM

from optuna_demix.errors import ComponentError
from optuna_demix.merging import METHODS, Arena, ComponentSet, LiveModel, find_method, load_whole
from optuna_demix.merging.live import building, memory
from optuna_demix.merging.live.block_stream import BlockStream
from optuna_demix.merging.live.placement import Placement
from optuna_demix.scoring.forward.batches import share_rows
from optuna_demix.scoring.forward.packed_model import head_sees, packed_logits
from optuna_demix.scoring.forward.packing import pack
from optuna_demix.scoring.generation.cache import RowCache
from optuna_demix.scoring.generation.passes import go_on, read_prompts

W = [0.2, 0.3, 0.5]
TOKENS = torch.arange(40).view(2, 20)
# By name, tensors of both places take turns: layer 0 there, layer 1 and the norm here.
SPLIT = {"": "cpu:0", "model.layers.0": "cpu:1"}
MAPS = {
    "llama-tied": SPLIT,
    "gpt-neox": {"": "cpu", "gpt_neox.layers.1": "cpu:1"},
    "gpt2": {"": "cpu", "transformer.h.0.mlp": "cpu:1", "transformer.h.1": "cpu:2"},
}
PARAMETERS: dict[str, dict[str, Any]] = {
    **{name: {"density": 0.6} for name in ("ties", "dare_linear", "dare_ties", "della")},
    "breadcrumbs": {"density": 0.7, "gamma": 0.05},
}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def _assert_equal(one: LiveModel, several: LiveModel) -> None:
    state = several.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert torch.equal(_logits(several.model), _logits(one.model))


def _arena(paths: dict[str, Path], folder: Path, block_size: int, **given: Any) -> Arena:
    components = ComponentSet.open(paths, base=paths["web"])
    return Arena.build(components, folder / "x.arena", block_size=block_size, **given)


# Another size of blocks once for each kind of preparation.
@pytest.mark.parametrize(
    ("method", "block_size"),
    [*((name, 64) for name in METHODS), ("linear", 1024), ("ties", 1024), ("karcher", 1024)],
)
def test_every_method_merges_the_same_bits(
    family_of: Callable[..., Any], tmp_path: Path, method: str, block_size: int
) -> None:
    chosen = find_method(method, PARAMETERS.get(method))
    paths = family_of("llama-untied", torch.bfloat16).paths
    arena = _arena(paths, tmp_path, block_size, method=chosen)
    one = LiveModel(arena, method=chosen, self_test=False)
    several = LiveModel(arena, method=chosen, device=SPLIT, self_test=False)
    assert len(several._shards) == 2
    for w in (W, [0.0, 1.0, 0.0]):
        one.merge(w)
        several.merge(w)
        _assert_equal(one, several)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_so_do_differences(family_of: Callable[..., Any], tmp_path: Path, kind: Any) -> None:
    method = find_method("linear", delta_dtype=kind)
    arena = _arena(family_of("llama-tied", torch.float32).paths, tmp_path, 64, method=method)
    one, several = (LiveModel(arena, method=method, device=d) for d in ("cpu", SPLIT))
    one.merge(W)
    several.merge(W)
    _assert_equal(one, several)


@pytest.mark.parametrize("family", ["llama-tied", "gpt-neox", "gpt2"])
def test_a_proxy_is_saved_and_a_whole_model_loaded(
    family_of: Callable[..., Any], tmp_path: Path, family: str
) -> None:
    paths = family_of(family, torch.float32).paths
    arena = _arena(paths, tmp_path, 256)
    one, several = LiveModel(arena), LiveModel(arena, device=MAPS[family])
    for live, folder in ((one, "one"), (several, "several")):
        live.merge(W)
        live.save_pretrained(tmp_path / folder)
    saved = [load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "several")]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[1][name], tensor) for name, tensor in saved[0].items())
    components = ComponentSet.open(paths)
    for live in (one, several):
        load_whole(components.components[1], live)
    _assert_equal(one, several)
    # Still views of the buffers: the next merge is seen.
    several.merge(W)
    one.merge(W)
    _assert_equal(one, several)


def test_state_that_derives_from_weights_is_restored_on_all_devices(tmp_path: Path) -> None:
    for seed, name in enumerate(("web", "code")):
        torch.manual_seed(seed)
        config = RwkvConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=4, rescale_every=1, context_length=32
        )
        RwkvForCausalLM(config).save_pretrained(tmp_path / name)
    paths = {name: tmp_path / name for name in ("web", "code")}
    arena = _arena(paths, tmp_path, 64)
    device = {"": "cpu:0", "rwkv.blocks.2": "cpu:1", "rwkv.blocks.3": "cpu:1"}
    one, several = LiveModel(arena), LiveModel(arena, device=device)
    for w in ([0.2, 0.8], [0.7, 0.3]):
        one.merge(w)
        several.merge(w)
        assert torch.equal(_logits(several.model), _logits(one.model))


class _Index:
    """An index that knows where it was sent."""

    def __init__(self, index: torch.Tensor) -> None:
        self.index, self.sent = index, list[str]()

    def to(self, device: torch.device) -> torch.Tensor:
        self.sent.append(device.type)
        return self.index


def _replace_parameters(builder: building.ModelBuilder, model: torch.nn.Module) -> None:
    """Bind as the builder does; ``meta`` takes no new data in place of the CPU's."""
    for name, view in building.views(builder.extents, builder.flats).items():
        module, _, own = name.rpartition(".")
        model.get_submodule(module).register_parameter(own, torch.nn.Parameter(view))


class TestTwoDevices:
    """The CPU and ``meta``, which takes activations and refuses to mix them with the CPU's."""

    @pytest.fixture
    def live(
        self, family_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> LiveModel:
        there = dict.fromkeys(("model.layers.1", "model.norm", "lm_head"), "meta")
        placement = Placement({"": "cpu", **there}, "cpu")
        monkeypatch.setattr(building, "find_placement", lambda *given: placement)
        monkeypatch.setattr(building.ModelBuilder, "_bind", _replace_parameters)
        monkeypatch.setattr(memory, "free_bytes", lambda device: None)
        arena = _arena(family_of("llama-untied", torch.float32).paths, tmp_path, 64)
        live = LiveModel(arena, resident=True, self_test=False)
        live.merge(W)
        return live

    def test_each_keeps_what_it_merges(self, live: LiveModel) -> None:
        assert live.device == torch.device("cpu")
        assert [device.type for device in live.devices] == ["cpu", "meta"]
        for name, tensor in live.model.state_dict().items():
            there = name.startswith(("model.layers.1.", "model.norm.", "lm_head."))
            assert tensor.device.type == ("meta" if there else "cpu")
            assert there or bool(tensor.isfinite().all())

    def test_activations_follow_and_logits_stay(self, live: LiveModel) -> None:
        logits = _logits(live.model)
        assert logits.device.type == "meta" and logits.shape == (2, 20, 64)

    def test_so_they_do_in_packed_passes(self, live: LiveModel) -> None:
        rows = share_rows([([1, 2, 3], [4]), ([1, 2, 3], [5, 6])], max_length=9)
        (batch,) = pack(rows, pass_tokens=99, square_cost=0.0)
        with torch.no_grad():
            logits = packed_logits(live.model, batch)
        assert logits.device.type == "meta" and logits.shape == (1, len(batch.kept), 64)

    def test_the_head_sees_tokens_where_the_last_layer_left_them(self, live: LiveModel) -> None:
        kept = _Index(torch.tensor([3, 7]))
        with head_sees(live.model, kept), torch.no_grad():  # type: ignore[arg-type]
            assert live.model(TOKENS).logits.shape == (1, 2, 64)
        assert kept.sent == ["meta"]

    def test_and_in_rows_that_are_gone_on_with(self, live: LiveModel) -> None:
        cache = RowCache(2)
        with torch.no_grad():
            first = read_prompts(live.model, cache, [[1, 2, 3], [4, 5]], first=0)
            then = go_on(live.model, cache, [6, 7], [3, 2])
        assert first.shape == then.shape == (2, 64)
        kept = [layer.kept[0].device.type for layer in cache._made]
        assert kept == ["cpu", "meta"]


def test_a_cache_writes_with_indices_on_the_device_of_each_layer() -> None:
    # The CPU's indices are taken everywhere, another device's only there.
    cache = RowCache(2)
    cache.place.rows, cache.place.width = 2, 4
    numbers, spots = _Index(torch.arange(2)), _Index(torch.tensor([2, 1]))
    cache.place.at = (numbers, spots)  # type: ignore[assignment]
    for layer, device in enumerate(("cpu", "meta")):
        new = torch.ones(2, 1, 1, 8, device=device)
        cache.update(new, new, layer)
    assert numbers.sent == spots.sent == ["cpu", "cpu", "meta", "meta"]


CUDA = torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    "device",
    [
        {"": 0, "model.layers.1": "cpu"},
        {"": "cpu", "model.layers.1": 0},
        pytest.param(
            {"": 0, "model.layers.1": 1, "model.norm": 1, "lm_head": 1},
            marks=pytest.mark.skipif(CUDA < 2, reason="needs two CUDA devices"),
        ),
        pytest.param(
            "balanced", marks=pytest.mark.skipif(CUDA < 2, reason="needs two CUDA devices")
        ),
    ],
)
def test_devices_merge_and_answer_as_the_cpu_does(
    family_of: Callable[..., Any], tmp_path: Path, device: Any, resident: bool
) -> None:
    arena = _arena(family_of("llama-untied", torch.float32).paths, tmp_path, 64)
    cpu, several = LiveModel(arena), LiveModel(arena, device=device, resident=resident)
    streams = [shard.blocks for shard in several._shards if shard.flat.is_cuda]
    assert all(isinstance(blocks, BlockStream) is not resident for blocks in streams)
    for w in (W, [0.0, 1.0, 0.0]):
        cpu.merge(w)
        several.merge(w)
        for ours, theirs in zip(cpu.model.parameters(), several.model.parameters(), strict=True):
            torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-6, atol=1e-7)
        logits = several.model(TOKENS.to(several.device)).logits
        torch.testing.assert_close(logits.cpu(), _logits(cpu.model), rtol=1e-4, atol=1e-4)
    cache = RowCache(2)
    with torch.no_grad():
        read_prompts(several.model, cache, [[1, 2, 3], [4, 5]], first=0)
        rows = go_on(several.model, cache, [6, 7], [3, 2])
        plain = several.model(torch.tensor([[1, 2, 3, 6]], device=several.device)).logits[0, -1]
        packs = share_rows([([1, 2, 3], [4]), ([1, 2, 3], [5, 6])], max_length=9)
        (batch,) = pack(packs, pass_tokens=99, square_cost=0.0)
        assert packed_logits(several.model, batch).isfinite().all()
    torch.testing.assert_close(rows[0], plain, rtol=1e-4, atol=1e-4)


def test_a_part_that_is_too_large_for_its_device_is_said(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ComponentError, match=r"needs [0-9,]+ bytes in float32, but cpu has 1,000"):
        LiveModel(arena, device=SPLIT)
