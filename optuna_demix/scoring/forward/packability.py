"""Whether a model gives packed rows what plain rows get: by its structure, then by trying it.

Tokens of packed rows must see each other through attention alone, by the mask and the positions
that are given. A convolution or a recurrent state runs over rows as they lie in memory; a window
counts places in memory, not ancestors. What little remains to go wrong is tried in float32, where
it cannot hide in the rounding of a smaller type.
"""

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
from optuna_demix.scoring.forward.packed_model import packed_logits
from optuna_demix.scoring.forward.packing import pack
from optuna_demix.scoring.forward.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from optuna_demix.scoring.forward.batches import Batch

TOLERANCE = 1e-4
"""Largest difference of a log-likelihood, in nats, at which packed rows pass for plain ones."""
_RELATIVE = 1e-5  # of a log-likelihood, where that is more: the sum of many float32 numbers
_PROBED_ROWS = 12  # inputs that the check runs
_WINDOWS = ("sliding_window", "attention_window", "attention_window_size", "attention_chunk_size")
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.RNNBase)


def why_unpackable(model: PreTrainedModel, rows: Sequence[BatchRow]) -> str | None:
    """Look at a model's structure, then score a few inputs packed and plain, and compare.

    Args:
        model: With finite weights.
        rows: All inputs that are to be packed.

    Returns:
        Why packing cannot be used, or ``None`` if it can.

    Raises:
        TaskError: If the model answers with NaN.
    """
    kind = model.config._attn_implementation
    if kind not in ("sdpa", "eager"):
        return f"attention {kind!r} takes no mask of its own; load the model with 'sdpa'"
    return _structure_forbids(model, rows) or _answers_differ(model, rows)


def _structure_forbids(model: PreTrainedModel, rows: Sequence[BatchRow]) -> str | None:
    """Return what of the model lets tokens see each other other than through full attention."""
    name = type(model).__name__
    if getattr(model, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    windowed = {kind for kind in kinds if kind in ("sliding_attention", "chunked_attention")}
    other = kinds - windowed - {"full_attention"}
    if other:
        return f"{name} has layers of type {sorted(other)[0]!r}"
    for part, module in model.named_modules():
        if isinstance(module, _CONVOLUTIONS):
            return f"{name} runs {type(module).__name__} over the tokens ({part})"
    if kinds == {"full_attention"} and getattr(config, "layer_types", None):
        return None  # a window is set, but no layer has it
    longest = max(len(row.ids) for row in rows)
    for field in _WINDOWS:
        window = getattr(config, field, None)
        if getattr(config, "use_sliding_window", True) and isinstance(window, int):
            if 0 < window < longest:
                return f"inputs of {longest} tokens exceed {field}, {window}"
    return None


def _answers_differ(model: PreTrainedModel, rows: Sequence[BatchRow]) -> str | None:
    """Score a few inputs in float32, packed and plain."""

    def plain_logits(batch: Batch) -> Tensor:
        logits: Tensor = model(batch.inputs.to(model.device)).logits
        return logits

    chosen = _sample(rows)
    count = 1 + max(request for row in chosen for request, _ in row.members)
    requests = [request for row in chosen for request, _ in row.members]
    try:
        with in_float32(model):
            plain = Passes(plain_logits).run([lay_out(chosen)], count=count, greedy=True)
    except TaskError:
        raise
    except Exception as error:  # a module that uses the parameters of another one
        return f"the model cannot be tried in float32 ({type(error).__name__}: {one_line(error)})"
    if not all(math.isfinite(plain[0][request]) for request in requests):
        raise TaskError(
            "shared_prefixes is tried on a few inputs, but the model answers with NaN: give it "
            "weights first, those of any mixture"
        )
    try:
        trees = pack(chosen, pass_tokens=sum(len(row.ids) for row in chosen), square_cost=0.0)
        with in_float32(model):
            run = Passes(partial(packed_logits, model, dtype=torch.float32))
            packed = run.run(trees, count=count, greedy=True)
    except Exception as error:  # whatever a model's own code makes of a mask it does not know
        return f"the model refuses packed rows ({type(error).__name__}: {one_line(error)})"
    for request in requests:
        one, other = plain[0][request], packed[0][request]
        if not abs(one - other) <= max(TOLERANCE, _RELATIVE * abs(one)):
            return (
                f"packed rows change a log-likelihood from {one:.6f} to {other:.6f}: the model "
                "does not keep to the attention mask or the positions it is given"
            )
    return None


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let a model compute in float32, each module's parameters widened only while it runs."""
    kept: list[tuple[torch.nn.Parameter, Tensor]] = []

    def widen(module: torch.nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            kept.append((parameter, parameter.data))
            parameter.data = parameter.data.float()

    def narrow(module: torch.nn.Module, *_: Any) -> None:
        for _parameter in module.parameters(recurse=False):
            parameter, data = kept.pop()
            parameter.data = data

    handles = []
    for module in model.modules():
        if any(
            p.is_floating_point() and p.dtype != torch.float32
            for p in module.parameters(recurse=False)
        ):
            handles.append(module.register_forward_pre_hook(widen))
            handles.append(module.register_forward_hook(narrow))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while kept:  # a forward pass that failed within a module
            parameter, data = kept.pop()
            parameter.data = data


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
