"""A transformers model over packed rows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from optuna_demix.scoring.forward.packing import PackedBatch

_ATTENTION_SLOWDOWN = 4.0  # of attention's arithmetic beside that of matrix products


def packed_logits(
    model: PreTrainedModel, batch: PackedBatch, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Run the model over packed rows; its output head sees the wanted tokens alone.

    Args:
        model: Takes a 4-D attention mask and position ids.
        batch: The rows.
        dtype: In which it computes, by default that of its parameters.

    Returns:
        Logits (1, R, V) of the kept tokens.
    """
    device = model.device
    dtype = model.dtype if dtype is None else dtype
    # Added to the scores, which every kind of attention understands.
    mask = torch.zeros((), dtype=dtype, device=device).where(
        batch.mask(device), torch.finfo(dtype).min
    )
    with head_sees(model, batch.kept.to(device)):
        logits: Tensor = model(
            batch.inputs.to(device),
            attention_mask=mask,
            position_ids=batch.depths.to(device),
            use_cache=False,
        ).logits
    return logits


@contextmanager
def head_sees(model: PreTrainedModel, kept: Tensor) -> Iterator[None]:
    """Hand the output head the kept tokens (R,) of the flattened rows only."""

    def select(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = arguments
        places = kept.to(hidden.device)  # of the last layer, where a model has several devices
        return (hidden.reshape(-1, hidden.shape[-1])[places][None], *rest)

    handle = _head_of(model).register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def attention_cost(model: PreTrainedModel) -> float:
    """What a row of N tokens costs beyond N, divided by N squared; see :func:`pack`."""
    config = model.config.get_text_config()
    outer = (model.get_input_embeddings(), _head_of(model))
    embeddings = {p for module in outer for p in module.parameters()}
    inner = sum(p.numel() for p in model.parameters() if p not in embeddings)
    attention = 2 * config.num_hidden_layers * config.hidden_size  # scores, and values mixed
    return float(_ATTENTION_SLOWDOWN * attention / max(inner, 1))


def _head_of(model: PreTrainedModel) -> torch.nn.Module:
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head
