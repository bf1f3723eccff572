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

PARAMETERS = 8_030_261_248
BLOCK = 2**18  # eight rows of it in float32 are 8 MiB
N_BLOCKS = 30_634  # of BLOCK elements each, the last one filled with 4,096
K = 7


def _eight_billion(kind: str | None, model_dtype: torch.dtype = torch.bfloat16) -> Footprint:
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
    )


def test_seven_components_of_eight_billion_parameters_in_bfloat16() -> None:
    found = _eight_billion(None)
    assert found.arena == N_BLOCKS * BLOCK * 2 * K == 112_427_270_144
    assert found.model == N_BLOCKS * BLOCK * 2 == 16_061_038_592
    # 256 MiB hold 73 blocks of seven rows; there are two such buffers.
    assert found.buffers == 2 * 73 * BLOCK * 2 * K == 535_822_336


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_the_same_as_differences(kind: str) -> None:
    found = _eight_billion(kind)
    block = K * (BLOCK + BLOCK // 64 * 4) + BLOCK * 2
    assert found.arena == N_BLOCKS * block == 75_788_025_856
    assert found.model == 16_061_038_592
    assert found.buffers == 2 * (2**28 // block) * block


def test_the_model_may_have_another_type() -> None:
    assert _eight_billion(None, torch.float32).model == N_BLOCKS * BLOCK * 4


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
    assert found.model == live.model.get_input_embeddings().weight.untyped_storage().nbytes()
