"""Which tensors of a checkpoint make which of the model, as ``from_pretrained`` decides it.

transformers' own tables and operations are used: names are changed, experts stacked, matrices
fused, split or transposed. One conversion is a group of stored tensors that makes one or a few
tensors of the model, so that a checkpoint is converted group by group and never held whole.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from optuna_demix._wording import one_line
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint
    from optuna_demix.merging.checkpoints.safetensors import TensorEntry


@dataclass(frozen=True, eq=False)
class Conversion:
    """Stored tensors that together make tensors of the model.

    Attributes:
        target: Name of the first tensor that it makes.
        sources: The stored tensors by the pattern that their names match, each in the order that
            transformers reads them in.
    """

    target: str
    sources: tuple[tuple[str, TensorEntry], ...]
    _converter: WeightConverter
    _model: Any

    @property
    def file(self) -> Path:
        """Where the first of its tensors lies."""
        return self.sources[0][1].file

    def run(self, read: Callable[[TensorEntry], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the tensors that it makes, by their names in the model.

        Args:
            read: Returns a stored tensor.

        Raises:
            Exception: Whatever transformers' operation raises.
        """
        converter = copy.deepcopy(self._converter)
        for pattern, entry in self.sources:
            # A callable is run when its tensor is needed, which is not kept.
            later: Any = partial(read, entry)
            converter.add_tensor(self.target, pattern, pattern, later)
        made = converter.convert(self.target, model=self._model, config=self._model.config)
        return {
            name: tensor[0] if isinstance(tensor, list) else tensor
            for name, tensor in made.items()
        }


@dataclass(frozen=True)
class Converted:
    """A tensor of the model that a conversion makes, under the name that it has there."""

    conversion: Conversion
    name: str
    shape: tuple[int, ...]

    @property
    def file(self) -> Path:
        """Where it comes from, or some of it."""
        return self.conversion.file


@dataclass(frozen=True)
class Matches:
    """What is in a checkpoint, as the model calls it.

    Attributes:
        stored: ``(name in the model, name in the file, entry)`` of tensors used as they are.
        conversions: What is made of the others, with the shapes it makes by name.
        unknown: ``(name as the model would call it, name in the file)`` of tensors that the model
            has no place for.
    """

    stored: list[tuple[str, str, TensorEntry]]
    conversions: list[tuple[Conversion, dict[str, tuple[int, ...]]]]
    unknown: list[tuple[str, str]]


def match_names(checkpoint: Checkpoint, model: Any) -> Matches:
    """Find what each stored tensor is in a model.

    Args:
        checkpoint: Its headers.
        model: On the ``meta`` device.

    Raises:
        ComponentError: If stored tensors cannot be converted.
    """
    mapping = get_model_conversion_mapping(model)  # anew: some steps remember what they have seen
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    converter_of = {
        pattern: converter for converter in converters for pattern in converter.source_patterns
    }
    state, prefix = model.state_dict(), model.base_model_prefix
    matches = Matches([], [], [])
    groups: dict[str, tuple[WeightConverter, list[tuple[str, TensorEntry]]]] = {}
    # What follows is convert_and_load_state_dict_in_model of transformers, without its reading.
    for name, entry in sorted(checkpoint.entries.items(), key=lambda item: _natural(item[0])):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = rename_source_key(name, [], [], prefix, state)
        if renamed not in state:
            matches.unknown.append((renamed, name))
        elif pattern is None:
            matches.stored.append((renamed, name, entry))
        else:
            groups.setdefault(renamed, (converter_of[pattern], []))[1].append((pattern, entry))
    for target, (converter, sources) in groups.items():
        conversion = Conversion(target, tuple(sources), converter, model)
        matches.conversions.append((conversion, _shapes(conversion, checkpoint.label)))
    return matches


def _natural(name: str) -> Any:
    return dot_natural_key(name)


def _shapes(conversion: Conversion, label: str) -> dict[str, tuple[int, ...]]:
    """Convert tensors without content."""
    try:
        made: Mapping[str, torch.Tensor] = conversion.run(
            lambda entry: torch.empty(entry.shape, dtype=torch.float32, device="meta")
        )
    except Exception as error:  # whatever transformers' operations make of other shapes
        what = f"tensor {conversion.target!r} cannot be made of what is stored ({one_line(error)})"
        remedy = "correct config.json, or save the whole model again"
        raise problem(label, what, remedy, file=conversion.file) from error
    return {name: tuple(tensor.shape) for name, tensor in made.items()}
