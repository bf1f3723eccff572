"""Components of random numbers, made fast."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def random_components(
    folder: Path,
    config: PretrainedConfig,
    dtype: torch.dtype,
    names: Sequence[str],
    *,
    distinct: int | None = None,
) -> list[Path]:
    """Save models of random numbers, which are slices of one pool.

    Args:
        folder: Where to; it must be there.
        config: Their configuration.
        dtype: Element type.
        names: Names of their folders.
        distinct: How many have weights of their own; the others are hard links to these.
            Default: all.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config).state_dict()
    shapes = {name: t.shape for name, t in state.items() if name != "lm_head.weight"}
    largest = max(shape.numel() for shape in shapes.values())
    generator = torch.Generator().manual_seed(0)
    pool = (0.02 * torch.randn(largest + (1 << 20), generator=generator)).to(dtype)
    paths = []
    for k, name in enumerate(names):
        paths.append(folder / name)
        paths[k].mkdir()
        config.save_pretrained(paths[k])
        if distinct is not None and k >= distinct:
            weights = "model.safetensors"
            os.link(paths[k % distinct] / weights, paths[k] / weights)
            continue
        starts = {name: 1009 * (k * len(shapes) + i) % (1 << 20) for i, name in enumerate(shapes)}
        tensors = {
            name: pool[starts[name] : starts[name] + shape.numel()].view(shape).clone()
            for name, shape in shapes.items()
        }
        save_file(tensors, paths[k] / "model.safetensors", metadata={"format": "pt"})
    return paths
