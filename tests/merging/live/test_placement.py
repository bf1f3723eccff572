"""Which module lies where, without memory for any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging.arena.layout import Part, plan_layout
from optuna_demix.merging.checkpoints.skeleton import Skeleton, build_skeleton
from optuna_demix.merging.live.extents import plan_extents
from optuna_demix.merging.live.placement import Placement, find_placement
from tests.tiny_models import llama_config

HALF = torch.bfloat16


def _skeleton(*, tied: bool = False, layers: int = 4) -> Skeleton:
    config = llama_config(
        vocab_size=64, num_hidden_layers=layers, tie_word_embeddings=tied, num_key_value_heads=1
    )
    return build_skeleton(config, "test", Path("config.json"), trust_remote_code=False)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({"": 0, "model.layer.1": 1}, "no module 'model.layer.1'; did you mean 'model.layers.1'"),
        ({"": 0, "lm_head": "disk"}, "modules on the disk cannot be merged; give each a device"),
        ({"": 0, "lm_head": "gpu"}, "'gpu' is not a device; give cpu, cuda or cuda:<number>"),
        ({"": 0, "lm_head": True}, "True is not a device"),
        ({"model": 0}, "no device for tensor 'lm_head.weight'; name its module, or ''"),
        ({"lm_head": 0, "model.layers": 0}, "no device for tensor 'model.embed_tokens.weight'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(device: dict[str, Any], said: str) -> None:
    with pytest.raises(ComponentError) as raised:
        find_placement(device, _skeleton(), HALF)
    assert str(raised.value).startswith(f"scoring.device_map: {said}")


def test_tied_tensors_stay_together() -> None:
    said = "'lm_head.weight' and 'model.embed_tokens.weight' are one tensor, but have two devices"
    with pytest.raises(ComponentError, match=said):
        find_placement({"": 0, "lm_head": 1}, _skeleton(tied=True), HALF)
    found = find_placement("auto", _skeleton(tied=True), HALF, available={0: 10**9, 1: 10**9})
    assert len(found.devices) == 2
    assert found.device_of("lm_head.weight") == found.device_of("model.embed_tokens.weight")


def test_the_longest_name_counts_and_inputs_go_to_the_first_parameter() -> None:
    found = find_placement(
        {"": 1, "model.layers.1": "cpu", "model.layers.1.mlp": 0}, _skeleton(layers=12), HALF
    )
    assert found.main == "cuda:1" and found.devices == ("cuda:1", "cpu", "cuda:0")
    assert found.device_of("model.layers.1.mlp.up_proj.weight") == "cuda:0"
    assert found.device_of("model.layers.1.self_attn.q_proj.weight") == "cpu"
    assert found.device_of("model.layers.10.mlp.up_proj.weight") == "cuda:1"


def test_hooks_get_modules_that_are_no_part_of_each_other() -> None:
    model = _skeleton().model
    names = dict(Placement({"": "cuda:1", "model.layers.1.mlp": "cpu"}, "cuda:1").disjoint(model))
    assert names["model.layers.1.mlp"] == torch.device("cpu")
    assert names["model.layers.1.self_attn"] == names["lm_head"] == torch.device("cuda:1")
    assert not {"", "model", "model.layers", "model.layers.1"} & set(names)
    for name in model.state_dict():
        assert sum(name == each or name.startswith(f"{each}.") for each in names) == 1
    assert Placement({"": "cpu"}, "cpu").disjoint(model) == {"": torch.device("cpu")}


@pytest.mark.parametrize("strategy", ["auto", "balanced", "balanced_low_0", "sequential"])
def test_accelerate_chooses(strategy: str) -> None:
    room = {0: 10**9, 1: 10**9}
    skeleton = _skeleton(layers=12)
    found = find_placement(strategy, skeleton, HALF, available=room)
    held: dict[str | None, int] = {}
    for name, shape in skeleton.shapes.items():
        device = found.device_of(name)
        held[device] = held.get(device, 0) + torch.Size(shape).numel()
    if strategy == "sequential":
        assert held.keys() == {"cuda:0"}
    elif strategy == "balanced_low_0":
        assert held.get("cuda:0", 0) < held["cuda:1"] / 2
    else:
        assert 0.5 < held["cuda:0"] / held["cuda:1"] < 2


def test_too_little_memory_names_what_is_needed_and_free() -> None:
    skeleton = _skeleton(layers=12)
    n_elements = sum(torch.Size(shape).numel() for shape in skeleton.shapes.values())
    for dtype, size in ((torch.float32, 4), (HALF, 2)):
        with pytest.raises(ComponentError) as raised:
            find_placement("auto", skeleton, dtype, available={0: 9_000, 1: 5_000})
        needed = f"proxy: needs {n_elements * size:,} bytes in"
        assert str(raised.value).startswith(needed)
        assert "leave 9,000 of cuda:0, 5,000 of cuda:1; " in str(raised.value)
        assert ("set scoring.dtype to bfloat16" in str(raised.value)) is (size == 4)


def test_without_cuda_devices_all_lies_on_the_cpu() -> None:
    assert find_placement("auto", _skeleton(), HALF, available={}).modules == {"": "cpu"}


def test_blocks_in_which_devices_meet_are_merged_by_both() -> None:
    shapes = {name: (128,) for name in "abcdef"}
    layout = plan_layout(shapes, n_rows=2, block_size=192)  # four blocks
    part = Part(torch.float32, layout)
    here, there = plan_extents([part], Placement({"": "x", "b": "y", "f": "y"}, "x"))
    # a: block 0, c: 1, d: 2, e: 2 and 3; b: 0 and 1, f: 3.
    assert here.ranges == (slice(0, 4),) and here.n_padded == 4 * 192
    assert there.ranges == (slice(0, 2), slice(3, 4)) and there.n_blocks == 3
    assert [(slot.name, start) for slot, start in there.offsets()] == [("b", 128), ("f", 448)]
    assert [slot.name for slot, _ in here.offsets()] == ["a", "c", "d", "e"]
    (only,) = plan_extents([part], Placement({"": "x"}, "x"))
    assert only.n_padded == layout.n_padded
    assert [(slot, start) for slot, start in only.offsets()] == [
        (slot, slot.offset) for slot in layout.slots
    ]
