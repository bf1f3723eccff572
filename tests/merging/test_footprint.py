"""The memory of large models, from a model that has no memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from optuna_demix.merging import Arena, ComponentSet, LiveModel, find_method
from optuna_demix.merging.checkpoints.components import tensor_specs
from optuna_demix.merging.checkpoints.skeleton import build_skeleton
from optuna_demix.merging.footprint import Footprint, plan_footprint
from optuna_demix.merging.live.placement import find_placement

PARAMETERS = 8_030_261_248
BLOCK = 2**18  # eight rows of it in float32 are 8 MiB
N_BLOCKS = 30_634  # of BLOCK elements each, the last one filled with 4,096
K = 7


def _eight_billion(
    kind: str | None, model_dtype: torch.dtype = torch.bfloat16, n_devices: int = 1
) -> Footprint:
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    skeleton = build_skeleton(config, "test", Path("config.json"), trust_remote_code=False)
    tensors = tensor_specs(skeleton)
    assert sum(spec.n_elements for spec in tensors.values()) == PARAMETERS
    assert (N_BLOCKS - 1) * BLOCK + 4096 == PARAMETERS
    return plan_footprint(
        tensors,
        K,
        method=find_method("linear", delta_dtype=kind),  # type: ignore[arg-type]
        dtype=torch.bfloat16,
        model_dtype=model_dtype,
        placement=find_placement(
            "balanced", skeleton, model_dtype, available=dict.fromkeys(range(n_devices), 2**62)
        ),
    )


def test_seven_components_of_eight_billion_parameters_in_bfloat16() -> None:
    found = _eight_billion(None)
    assert found.arena == N_BLOCKS * BLOCK * 2 * K == 112_427_270_144
    (device,) = found.devices
    assert device.arena == found.arena
    assert device.model == N_BLOCKS * BLOCK * 2 == 16_061_038_592
    # 256 MiB hold 73 blocks of seven rows; there are two such buffers.
    assert device.buffers == 2 * 73 * BLOCK * 2 * K == 535_822_336


@pytest.mark.parametrize(
    ("n_devices", "kind", "models", "copies"),
    [
        (2, None, [7_159_676_928, 8_904_507_392], [50_117_738_496, 62_331_551_744]),
        (2, "int8", [7_159_676_928, 8_904_507_392], [33_784_725_504, 42_018_144_256]),
        (
            4,
            None,
            [3_233_808_384, 4_363_124_736, 4_363_124_736, 4_105_699_328],
            [22_636_658_688, 30_541_873_152, 30_541_873_152, 28_739_895_296],
        ),
    ],
)
def test_the_same_over_several_devices(
    n_devices: int, kind: str | None, models: list[int], copies: list[int]
) -> None:
    found = _eight_billion(kind, n_devices=n_devices)
    assert [device.device for device in found.devices] == [f"cuda:{i}" for i in range(n_devices)]
    assert [device.model for device in found.devices] == models
    assert [device.arena for device in found.devices] == copies
    assert found.arena == _eight_billion(kind).arena
    # Blocks in which two devices meet lie on both: fewer than one for each run of layers.
    assert 0 < sum(models) - 16_061_038_592 < 32 * BLOCK * 2


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_the_same_as_differences(kind: str) -> None:
    found = _eight_billion(kind)
    block = K * (BLOCK + BLOCK // 64 * 4) + BLOCK * 2
    assert found.arena == N_BLOCKS * block == 75_788_025_856
    (device,) = found.devices
    assert device.model == 16_061_038_592
    assert device.buffers == 2 * (2**28 // block) * block


def test_the_model_may_have_another_type() -> None:
    assert _eight_billion(None, torch.float32).devices[0].model == N_BLOCKS * BLOCK * 4


@pytest.mark.parametrize("kind", [None, "int8"])
def test_it_is_what_is_allocated(paths: dict[str, Path], tmp_path: Path, kind: str | None) -> None:
    method = find_method("linear", delta_dtype=kind)  # type: ignore[arg-type]
    components = ComponentSet.open(paths, base=paths["web"])
    arena = Arena.build(components, tmp_path / "x.arena", method=method)
    live = LiveModel(arena, method=method, self_test=False)
    found = plan_footprint(
        components.tensors, 3, method=method, dtype=torch.float32, model_dtype=torch.float32
    )
    assert found.arena == arena.nbytes
    assert (
        found.devices[0].model
        == live.model.get_input_embeddings().weight.untyped_storage().nbytes()
    )
