"""What transformers' model class says about the parameters, without their values.

The model is built on torch's ``meta`` device: names, shapes and ties are real, memory is not
touched and nothing is initialized.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from optuna_demix._wording import one_line
from optuna_demix.merging._problem import problem

if TYPE_CHECKING:
    from pathlib import Path

# Buffers that older releases of transformers saved and current ones rebuild.
_REBUILT = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"\.masked_bias$")


@dataclass(frozen=True)
class Skeleton:
    """The state dict of a model class, valueless.

    Attributes:
        shapes: Shape of every parameter and persistent buffer by its canonical name. Tied
            parameters have one canonical name, the first in the model's own order.
        canonical: Canonical name of every name in the state dict.
        prefix: Name of the base model inside the causal LM, e.g. ``transformer``.
        model_class: The class that transformers chose for the config.
    """

    shapes: dict[str, tuple[int, ...]]
    canonical: dict[str, str]
    prefix: str
    model_class: type[Any]
    _ignored: re.Pattern[str]
    _transient: frozenset[str]
    _renamings: tuple[WeightRenaming, ...]
    _converters: tuple[WeightConverter, ...]

    def resolve(self, name: str) -> str | None:
        """Return the canonical name of a checkpoint's tensor, or None if the model has none.

        As ``from_pretrained`` does, a name may lack or carry the prefix of the base model, or be
        one that the model class used to have.
        """
        for candidate in self._spellings(name):
            if candidate in self.canonical:
                return self.canonical[candidate]
        return None

    def is_rebuilt(self, name: str) -> bool:
        """Tell whether the model does without this tensor of a checkpoint."""
        return self._ignored.search(name) is not None or any(
            candidate in self._transient for candidate in self._spellings(name)
        )

    def _spellings(self, name: str) -> tuple[str, ...]:
        dotted = f"{self.prefix}."
        renamed, computed_from = rename_source_key(name, [*self._renamings], [*self._converters])
        names = (name,) if computed_from is not None else (renamed, name)
        return tuple(
            spelling
            for candidate in names
            for spelling in (candidate, dotted + candidate, candidate.removeprefix(dotted))
        )


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
                config, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # whatever a model's own constructor raises
        remedy = "merge causal language models that this release of transformers can build"
        what = f"no causal language model can be built ({one_line(error)})"
        raise problem(place, what, remedy, file=config_path) from error
    state = model.state_dict(keep_vars=True)
    first_name: dict[torch.Tensor, str] = {}  # tensors are equal as keys if they are the same one
    canonical = {name: first_name.setdefault(tensor, name) for name, tensor in state.items()}
    patterns = [*_REBUILT, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    mapping = get_model_conversion_mapping(model)
    return Skeleton(
        shapes={name: tuple(state[name].shape) for name in dict.fromkeys(canonical.values())},
        canonical=canonical,
        prefix=model.base_model_prefix,
        model_class=type(model),
        _ignored=re.compile("|".join(f"(?:{pattern})" for pattern in patterns)),
        _transient=frozenset(name for name, _ in model.named_buffers() if name not in state),
        _renamings=tuple(step for step in mapping if isinstance(step, WeightRenaming)),
        _converters=tuple(step for step in mapping if isinstance(step, WeightConverter)),
    )
