"""Forward passes over rows of a cache: prompts are read, one token a row is gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from optuna_demix.scoring.forward import head_sees
from optuna_demix.scoring.generation.attention import Fronts, looking_at
from optuna_demix.scoring.generation.cache import Beginning, RowCache, size_of

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
    beginning: Beginning | None = None,
    once: bool = False,
) -> Tensor:
    """Read prompts into free rows.

    Args:
        model: The model.
        cache: Its rows.
        prompts: Token ids, more than those of the beginning each.
        first: The first free row.
        beginning: Keys and values of what all prompts begin with.
        once: Leave them where they are, and out of the rows.

    Returns:
        Logits (B, V) behind the last token of each prompt.
    """
    device, shared = model.device, size_of(beginning)
    lengths = [len(ids) - shared for ids in prompts]
    longest = max(lengths)
    # Padding lies behind a row's tokens, where none of them looks.
    padded = [[*ids[shared:], *[0] * (shared + longest - len(ids))] for ids in prompts]
    spots = torch.arange(longest, device=device)
    positions = spots.expand(len(prompts), longest)
    real = torch.tensor(lengths, device=device)[:, None] > positions
    start = 0 if once else shared
    width = _aligned(start + longest)
    place = cache.place
    place.first, place.rows, place.width = first, len(prompts), width
    place.start, place.at, place.beginning = start, None, None if once else beginning
    seen = torch.arange(width, device=device) <= spots[:, None] + start  # (Q, W)
    kept = torch.arange(len(prompts), device=device) * longest + real.sum(dim=1) - 1
    fronts = [(slice(None), beginning if once else None)]
    with head_sees(model, kept), looking_at(model, fronts) as more:
        logits: Tensor = model(
            torch.tensor(padded, device=device),
            attention_mask=_additive(model, seen)[None, None],
            position_ids=(positions + shared) * real,  # those of padding may be out of range
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits
    return logits[0]


def go_on(
    model: PreTrainedModel,
    cache: RowCache,
    tokens: Sequence[int],
    lengths: Sequence[int],
    beginnings: Sequence[Beginning | None] = (),
) -> Tensor:
    """Give each row, from the first on, one more token.

    Args:
        model: The model.
        cache: Its rows.
        tokens: The token of each row.
        lengths: Tokens that the row has before.
        beginnings: Of each row, what stands in front of it and is kept once; none in any row, if
            there are none.

    Returns:
        Logits (B, V) behind these tokens.
    """
    device = model.device
    beginnings = beginnings or [None] * len(tokens)
    own = [n - size_of(b) for n, b in zip(lengths, beginnings, strict=True)]
    at = torch.tensor(own, device=device)
    width = _aligned(max(own) + 1)
    place = cache.place
    place.first, place.rows, place.width = 0, len(tokens), width
    place.start, place.beginning = max(own), None
    place.at = torch.arange(len(tokens), device=device), at
    seen = torch.arange(width, device=device) <= at[:, None]  # (B, W)
    with looking_at(model, _fronts(beginnings, device)) as more:
        logits: Tensor = model(
            torch.tensor(tokens, device=device)[:, None],
            attention_mask=_additive(model, seen)[:, None, None],
            position_ids=torch.tensor(lengths, device=device)[:, None],
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits
    return logits[:, -1]


def _fronts(beginnings: Sequence[Beginning | None], device: torch.device) -> Fronts:
    """The rows that have each beginning."""
    rows: dict[int, list[int]] = {}
    for number, beginning in enumerate(beginnings):
        rows.setdefault(id(beginning), []).append(number)
    if len(rows) == 1:
        return [(slice(None), beginnings[0])]
    return [
        (torch.tensor(numbers, device=device), beginnings[numbers[0]]) for numbers in rows.values()
    ]


def _additive(model: PreTrainedModel, seen: Tensor) -> Tensor:
    """A mask that is added to the scores, which every kind of attention understands."""
    nothing = torch.zeros((), dtype=model.dtype, device=seen.device)
    return nothing.where(seen, torch.finfo(model.dtype).min)


def _aligned(width: int) -> int:
    return width + -width % _ALIGNMENT
