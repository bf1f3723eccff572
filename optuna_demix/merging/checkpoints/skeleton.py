"""What transformers' model class says about the parameters, without their values.

The model is built on torch's ``meta`` device: names, shapes, dtypes and ties are real, memory is
not touched and nothing is initialized.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import build_glob_alternation

from optuna_demix._wording import one_line
from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from pathlib import Path

# Buffers that older releases of transformers saved and current ones rebuild.
_REBUILT = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"\.masked_bias$")
# The dtype that the model is built in: whatever has another one is kept in it.
_BUILT = torch.bfloat16


@dataclass(frozen=True)
class Skeleton:
    """The state dict of a model class, valueless.

    Attributes:
        model: The model, on the ``meta`` device.
        shapes: Shape of every parameter and persistent buffer by its canonical name. Tied
            parameters have one canonical name, the first in the model's own order.
        canonical: Canonical name of every name in the state dict.
        constants: Dtype of those that have no average, such as tables of integers.
        is_part: Whether the config describes more, such as the text model of a multimodal one.
    """

    model: Any
    is_part: bool
    shapes: dict[str, tuple[int, ...]]
    canonical: dict[str, str]
    constants: dict[str, torch.dtype]
    _ignored: re.Pattern[str]
    _transient: frozenset[str]
    _fixed: dict[str, torch.dtype]

    @property
    def model_class(self) -> type[Any]:
        """The class that transformers chose for the config."""
        return type(self.model)

    @property
    def config(self) -> Any:
        """The config of that class; of a composite config, the part that describes the text."""
        return self.model.config

    def dtypes(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Return what ``from_pretrained(..., dtype=dtype)`` makes of each mergeable tensor.

        A model may keep some of them in float32, because its class says so or its code does.
        """
        kept = dict(self.model._get_dtype_plan(dtype))
        pattern, glob_of, _ = build_glob_alternation([*kept])
        found = {}
        for name in self.shapes:
            if name in self.constants:
                continue
            match = pattern.search(name) if kept else None
            if match is not None:
                found[name] = kept[glob_of[str(match.lastgroup)]]
            else:
                found[name] = self._fixed.get(name, dtype)
        return found

    def does_without(self, name: str) -> bool:
        """Tell whether the model does without a tensor, named as the model would name it."""
        return self.is_part or self._ignored.search(name) is not None or name in self._transient


def load_config(directory: Path, place: str, *, trust_remote_code: bool) -> Any:
    """Return transformers' config object of a model directory.

    Raises:
        ComponentError: If transformers does not know the model or refuses the config.
    """
    file = directory / "config.json"
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a model's own config class raises
        remedy = "correct the file; a model with its own code needs trust_remote_code=True"
        raise problem(place, f"refused ({one_line(error)})", remedy, file=file) from error


def build_skeleton(
    config: Any, place: str, config_path: Path, *, trust_remote_code: bool
) -> Skeleton:
    """Return the skeleton of the causal LM that a config describes.

    Raises:
        ComponentError: If it describes none.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                copy.deepcopy(config), trust_remote_code=trust_remote_code, dtype=_BUILT
            )
    except Exception as error:  # whatever a model's own constructor raises
        remedy = "merge causal language models that this release of transformers can build"
        what = f"no causal language model can be built ({one_line(error)})"
        raise problem(place, what, remedy, file=config_path) from error
    state = model.state_dict(keep_vars=True)
    first_name: dict[torch.Tensor, str] = {}  # tensors are equal as keys if they are the same one
    canonical = {name: first_name.setdefault(tensor, name) for name, tensor in state.items()}
    tensors = {name: state[name] for name in dict.fromkeys(canonical.values())}
    patterns = [*_REBUILT, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    return Skeleton(
        model=model,
        is_part=type(model.config) is not type(config),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        canonical=canonical,
        constants={
            name: tensor.dtype
            for name, tensor in tensors.items()
            if tensor.dtype not in MERGEABLE.values()
        },
        _ignored=re.compile("|".join(f"(?:{pattern})" for pattern in patterns)),
        _transient=frozenset(name for name, _ in model.named_buffers() if name not in state),
        _fixed={name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype != _BUILT},
    )
