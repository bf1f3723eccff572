"""Forward passes over rows of a cache: prompts are read, one token a row is gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from optuna_demix.scoring.forward import head_sees
from optuna_demix.scoring.generation.cache import Beginning, RowCache

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_ALIGNMENT = 8  # of the places that are read, for the kernels of GPUs


def read_prompts(
    model: PreTrainedModel,
    cache: RowCache,
    prompts: Sequence[Sequence[int]],
    *,
    first: int,
    shared: int = 0,
    beginning: Beginning | None = None,
) -> Tensor:
    """Read prompts into free rows.

    Args:
        model: The model.
        cache: Its rows.
        prompts: Token ids, more than ``shared`` each.
        first: The first free row.
        shared: Tokens at the beginning of all prompts whose keys and values are given.
        beginning: These keys and values.

    Returns:
        Logits (B, V) behind the last token of each prompt.
    """
    device = model.device
    lengths = [len(ids) - shared for ids in prompts]
    longest = max(lengths)
    # Padding lies behind a row's tokens, where none of them looks.
    padded = [[*ids[shared:], *[0] * (shared + longest - len(ids))] for ids in prompts]
    spots = torch.arange(longest, device=device)
    positions = spots.expand(len(prompts), longest)
    real = torch.tensor(lengths, device=device)[:, None] > positions
    width = _aligned(shared + longest)
    place = cache.place
    place.first, place.rows, place.width = first, len(prompts), width
    place.start, place.at, place.beginning = shared, None, beginning
    seen = torch.arange(width, device=device) <= spots[:, None] + shared  # (Q, W)
    kept = torch.arange(len(prompts), device=device) * longest + real.sum(dim=1) - 1
    with head_sees(model, kept):
        logits: Tensor = model(
            torch.tensor(padded, device=device),
            attention_mask=_additive(model, seen)[None, None],
            position_ids=(positions + shared) * real,  # those of padding may be out of range
            past_key_values=cache,
            use_cache=True,
        ).logits
    return logits[0]


def go_on(
    model: PreTrainedModel, cache: RowCache, tokens: Sequence[int], lengths: Sequence[int]
) -> Tensor:
    """Give each row, from the first on, one more token.

    Args:
        model: The model.
        cache: Its rows.
        tokens: The token of each row.
        lengths: Tokens that the row has before.

    Returns:
        Logits (B, V) behind these tokens.
    """
    device = model.device
    at = torch.tensor(lengths, device=device)
    width = _aligned(max(lengths) + 1)
    place = cache.place
    place.first, place.rows, place.width = 0, len(tokens), width
    place.start, place.beginning = max(lengths), None
    place.at = torch.arange(len(tokens), device=device), at
    seen = torch.arange(width, device=device) <= at[:, None]  # (B, W)
    logits: Tensor = model(
        torch.tensor(tokens, device=device)[:, None],
        attention_mask=_additive(model, seen)[:, None, None],
        position_ids=at[:, None],
        past_key_values=cache,
        use_cache=True,
    ).logits
    return logits[:, -1]


def _additive(model: PreTrainedModel, seen: Tensor) -> Tensor:
    """A mask that is added to the scores, which every kind of attention understands."""
    nothing = torch.zeros((), dtype=model.dtype, device=seen.device)
    return nothing.where(seen, torch.finfo(model.dtype).min)


def _aligned(width: int) -> int:
    return width + -width % _ALIGNMENT
