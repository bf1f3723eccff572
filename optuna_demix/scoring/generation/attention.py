"""Attention of rows that begin alike: their common keys and values are there once.

transformers lets a model's attention be any function of its registry. This one looks at the keys
of a row and at those that it shares with others, as if they stood in front: the scores of both
go through one softmax. Shared keys are read once for all rows, in one matrix product, and kept
once, where copies would take memory and bandwidth for each row.

Models that do not take their attention from the registry, or hand it more than scores can be made
of, are found out by a trial before the first text is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from optuna_demix.scoring.generation.cache import Beginning

Fronts: TypeAlias = "Sequence[tuple[Tensor | slice, Beginning | None]]"
"""Rows, each in one part, with what stands in front of them."""

_NAME = "optuna_demix_fronts"
_HARMLESS = {"is_causal", "dropout", "use_cache", "position_ids"}


@contextmanager
def looking_at(model: PreTrainedModel, fronts: Fronts) -> Iterator[dict[str, Any]]:
    """Let a model's attention look at what stands in front of its rows, if anything does.

    Yields:
        What its forward pass has to be given besides.
    """
    if all(beginning is None for _, beginning in fronts):
        yield {}
        return
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield {"fronts": fronts}
    finally:
        model.config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    fronts: Fronts,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention (B, Q, H, D) of queries (B, H, Q, D) to keys (B, G, W, D) and the fronts."""
    unknown = [
        name
        for name, value in others.items()
        if name not in _HARMLESS and value is not None and value is not False
    ]
    if unknown:
        raise TypeError(f"attention with {unknown[0]}")
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    found: Tensor | None = None
    for rows, beginning in fronts:
        mask = attention_mask if len(attention_mask) == 1 else attention_mask[rows]
        front = None if beginning is None else beginning[module.layer_idx]
        part = _joint(query[rows], key[rows], value[rows], mask, front)
        if len(fronts) == 1:
            return part, None
        found = part.new_empty(len(query), *part.shape[1:]) if found is None else found
        found[rows] = part
    assert found is not None
    return found, None


def _joint(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, front: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Attention (B, Q, H, D) of scaled queries to keys and one front, (G, P, D) each."""
    batch, heads, length, size = query.shape
    groups, width = key.shape[1], key.shape[2]
    by_group = query.reshape(batch, groups, -1, size)  # (B, G, H/G Q, D)
    scores = by_group @ key.transpose(2, 3)
    scores = scores.view(batch, groups, -1, length, width) + mask[:, :, None]
    scores = scores.view(batch, groups, -1, width)
    if front is None:
        mixed = scores.float().softmax(dim=-1).to(query.dtype) @ value
    else:
        keys, values = front
        together = by_group.transpose(0, 1).reshape(groups, -1, size)  # (G, B H/G Q, D)
        ahead = (together @ keys.transpose(1, 2)).view(groups, batch, -1, keys.shape[1])
        both = torch.cat([ahead.transpose(0, 1), scores], dim=-1).float().softmax(dim=-1)
        both = both.to(query.dtype)
        ahead, scores = both[..., :-width], both[..., -width:]
        together = ahead.transpose(0, 1).reshape(groups, -1, keys.shape[1])
        mixed = (together @ values).view(groups, batch, -1, values.shape[-1]).transpose(0, 1)
        mixed = mixed + scores @ value
    return mixed.reshape(batch, heads, length, -1).transpose(1, 2).contiguous()
