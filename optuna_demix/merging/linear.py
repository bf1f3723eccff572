"""The weighted average of the components, ``sum_k w_k · T_k`` (linear merging, model soups)."""

from __future__ import annotations

import torch

# Elements a step: one float32 row and the accumulator stay in cache, dispatch costs little.
_STEP = {"cpu": 1 << 20}
_DEVICE_STEP = 1 << 25


@torch.no_grad()
def linear(blocks: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
    """Write the weighted sum of K components into ``out``.

    Products and sums are float32 whatever the storage; the result is rounded once, to nearest
    even. Weights of exactly one component return it bit for bit.

    Args:
        blocks: Components, (n, K, block_size).
        w: Merge weights, (K,), float64 on the CPU; they need not lie on the simplex.
        out: Result, (n, block_size), on the device of ``blocks``.
    """
    weights: list[float] = w.tolist()
    chosen = [k for k, weight in enumerate(weights) if weight != 0.0]
    if len(chosen) == 1 and weights[chosen[0]] == 1.0:
        out.copy_(blocks[:, chosen[0]])
        return
    step = max(1, _STEP.get(blocks.device.type, _DEVICE_STEP) // blocks.shape[2])
    shape = (min(step, blocks.shape[0]), blocks.shape[2])
    scratch = torch.empty(shape, dtype=torch.float32, device=blocks.device)
    total = torch.empty_like(scratch)
    for part, target in zip(torch.split(blocks, step), torch.split(out, step), strict=True):
        _merge_part(part, weights, target, scratch[: len(part)], total[: len(part)])


def _merge_part(
    part: torch.Tensor,  # (m, K, block_size)
    weights: list[float],
    target: torch.Tensor,  # (m, block_size)
    scratch: torch.Tensor,  # (m, block_size) float32
    total: torch.Tensor,  # (m, block_size) float32
) -> None:
    if target.dtype == torch.float32:
        total = target
    for k, weight in enumerate(weights):
        row = part[:, k]
        if row.dtype != torch.float32:
            row = scratch.copy_(row)
        if k == 0:
            torch.mul(row, weight, out=total)
        else:
            total.add_(row, alpha=weight)
    if total is not target:
        target.copy_(total)
