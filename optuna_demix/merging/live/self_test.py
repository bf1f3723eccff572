"""Does a model compute from its parameters alone, whatever they were before?

Some models derive state from their weights: RWKV divides some by powers of two at the first
forward pass and remembers that it did. Merged again, such a model would be wrong.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix._wording import one_line
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

_LENGTHS = (7, 12)  # tokens of the two inputs
# Off the CPU, where atomic sums have no order: relative to the largest logit.
_TOLERANCE_32, _TOLERANCE_16 = 2**-10, 2**-5
_INTERNAL = frozenset(vars(torch.nn.Module()))


class Pristine:
    """What a model holds before its first forward pass, to be put back.

    Args:
        model: A model that has not been run.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._modules = [
            (module, _copied({k: v for k, v in vars(module).items() if k not in _INTERNAL}))
            for module in model.modules()
        ]
        tables: list[dict[str, Any]] = [
            tensors
            for module in model.modules()
            for tensors in (module._parameters, module._buffers)
        ]
        self._tensors = [
            (tensors, dict(tensors), {k: t.data for k, t in tensors.items() if t is not None})
            for tensors in tables
        ]
        named = set(model.state_dict())
        self._outside = [
            (buffer, buffer.clone())
            for name, buffer in model.named_buffers()
            if name not in named or not buffer.is_floating_point()
        ]

    def restore(self) -> None:
        """Put everything back but the content of what is merged."""
        for module, attributes in self._modules:
            for name in set(vars(module)) - _INTERNAL - set(attributes):
                delattr(module, name)
            vars(module).update(_copied(attributes))
        for tensors, objects, content in self._tensors:
            tensors.clear()
            tensors.update(objects)
            for name, data in content.items():
                tensors[name].data = data
        for buffer, original in self._outside:
            buffer.copy_(original)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """Copy containers, which may be changed in place, and keep the rest."""
    return {
        name: copy.copy(value) if isinstance(value, (dict, list, set)) else value
        for name, value in attributes.items()
    }


def needs_restoring(
    model: PreTrainedModel,
    build: Callable[[], PreTrainedModel],
    merge: Callable[[Sequence[float]], None],
    pristine: Pristine,
    *,
    n_components: int,
) -> bool:
    """Merge, run, merge again and run a model; compare with a new one that sees the second alone.

    Args:
        model: The model, never run. It has been run afterwards.
        build: Returns a new model with the same parameters.
        merge: Writes a mixture into them.
        pristine: Of ``model``.
        n_components: K.

    Returns:
        False if the model passes as it is, True if it does when restored before each merge.

    Raises:
        ComponentError: If it cannot be run, or passes neither way.
    """
    total = n_components * (n_components + 1) / 2
    uniform = [1 / n_components] * n_components
    other = [(k + 1) / total for k in range(n_components)]
    allowed = _tolerance(model)
    # The first forward pass of the new model may change what both share.
    fresh = build()
    merge(other)
    wanted = _answers(fresh)
    del fresh
    for restore in (False, True):
        for mixture in (uniform, other):
            if restore:
                pristine.restore()
            merge(mixture)
            given = _answers(model)
        if all(_same(*pair, allowed) for pair in zip(given, wanted, strict=True)):
            return restore
    what = f"{type(model).__name__} answers otherwise when it is merged a second time"
    remedy = "it keeps state that was computed from earlier weights and cannot be merged in place"
    raise problem("proxy", what, remedy)


def _answers(model: PreTrainedModel) -> list[torch.Tensor]:
    """Logits of two short inputs."""
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None) or 32
    answers = []
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    for length in _LENGTHS:
        ids = torch.arange(1, length + 1) * 7 % vocabulary
        try:
            with torch.random.fork_rng(devices), torch.no_grad():
                torch.manual_seed(0)  # some attention draws random hashes
                answers.append(model(input_ids=ids[None].to(model.device)).logits.float())
        except Exception as error:  # whatever a model's own code raises
            what = f"{type(model).__name__} cannot be run on token ids alone ({one_line(error)})"
            raise problem("proxy", what, "merge models that score plain text") from error
    return answers


def _tolerance(model: PreTrainedModel) -> float:
    """What sums in another order may change, relative to the largest logit; on a CPU nothing."""
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        return 0.0
    return _TOLERANCE_32 if model.dtype == torch.float32 else _TOLERANCE_16


def _same(given: torch.Tensor, wanted: torch.Tensor, allowed: float) -> bool:
    scale = float(wanted.abs().nan_to_num().max())
    return torch.allclose(given, wanted, rtol=0.0, atol=allowed * scale, equal_nan=True)
