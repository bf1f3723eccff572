"""A transformers model over packed rows, and whether it gives them what plain rows get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix._wording import one_line
from optuna_demix.errors import TaskError
from optuna_demix.scoring.forward.batches import BatchRow, lay_out
from optuna_demix.scoring.forward.packing import PackedBatch, pack
from optuna_demix.scoring.forward.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from optuna_demix.scoring.forward.batches import Batch

TOLERANCE = 1e-4
"""Largest difference of a log-likelihood, in nats, at which packed rows pass for plain ones."""
_MAX_ROUNDINGS = 4  # of the model's dtype, relative to a log-likelihood, where that is more
_PROBED_ROWS = 12  # inputs that the check runs
_ATTENTION_SLOWDOWN = 4.0  # of attention's arithmetic beside that of matrix products


def packed_logits(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Run the model over packed rows; its output head sees the wanted tokens alone.

    Args:
        model: Takes a 4-D attention mask and position ids.
        batch: The rows.

    Returns:
        Logits (1, R, V) of the kept tokens.
    """
    device = model.device
    # Added to the scores, which every kind of attention understands.
    mask = torch.zeros((), dtype=model.dtype, device=device).where(
        batch.mask(device), torch.finfo(model.dtype).min
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
        return (hidden.reshape(-1, hidden.shape[-1])[kept][None], *rest)

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


def why_unpackable(
    model: PreTrainedModel, rows: Sequence[BatchRow], logits_of: Callable[[Batch], Tensor]
) -> str | None:
    """Score a few inputs packed and plain, and compare.

    Args:
        model: With finite weights.
        rows: All inputs that are to be packed.
        logits_of: The plain path.

    Returns:
        Why packing cannot be used, or ``None`` if it can.

    Raises:
        TaskError: If the model answers with NaN.
    """
    kind = model.config._attn_implementation
    if kind not in ("sdpa", "eager"):
        return f"attention {kind!r} takes no mask of its own; load the model with 'sdpa'"
    chosen = _sample(rows)
    count = 1 + max(request for row in chosen for request, _ in row.members)
    requests = [request for row in chosen for request, _ in row.members]
    plain = Passes(logits_of).run([lay_out(chosen)], count=count, greedy=True)
    if not all(math.isfinite(plain[0][request]) for request in requests):
        raise TaskError(
            "shared_prefixes is tried on a few inputs, but the model answers with NaN: give it "
            "weights first, those of any mixture"
        )
    try:
        trees = pack(chosen, pass_tokens=sum(len(row.ids) for row in chosen), square_cost=0.0)
        packed = Passes(partial(packed_logits, model)).run(trees, count=count, greedy=True)
    except Exception as error:  # whatever a model's own code makes of a mask it does not know
        return f"the model refuses packed rows ({type(error).__name__}: {one_line(error)})"
    rounding = _MAX_ROUNDINGS * torch.finfo(model.dtype).eps
    for request in requests:
        one, other = plain[0][request], packed[0][request]
        if not abs(one - other) <= max(TOLERANCE, rounding * abs(one)):
            return (
                f"packed rows change a log-likelihood from {one:.6f} to {other:.6f}: the model "
                "does not keep to the attention mask or the positions it is given"
            )
    return None


def _sample(rows: Sequence[BatchRow]) -> list[BatchRow]:
    """The longest input, and groups of neighbors in the tree."""
    ordered = sorted(rows, key=lambda row: row.ids)
    if len(ordered) <= _PROBED_ROWS:
        return ordered
    half = (_PROBED_ROWS - 1) // 2
    middle = len(ordered) // 2
    longest = max(ordered, key=lambda row: len(row.ids))
    near = [*ordered[:half], *ordered[middle : middle + half]]
    return near if any(row is longest for row in near) else [*near, longest]


def _head_of(model: PreTrainedModel) -> torch.nn.Module:
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head
