"""Build the transformers model whose parameters are views of given memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from optuna_demix._wording import one_line
from optuna_demix.merging._dtypes import dtype_name
from optuna_demix.merging._problem import problem
from optuna_demix.merging._quiet import quiet_transformers
from optuna_demix.merging.checkpoints.skeleton import Skeleton, build_skeleton, load_config
from optuna_demix.merging.live.buffers import allocate, part_dtypes, read_constants, views

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from optuna_demix.merging.arena.arena import Arena


class ModelBuilder:
    """Builds models of one arena, all over the same buffers.

    Args:
        arena: The components.
        directory: The arena's unpacked files.
        device: Where the models live.
        dtype: Element type of the parameters, but for those that the model keeps in another one.
        trust_remote_code: Let the model run code that came with the components.

    Attributes:
        flats: A flat buffer for each part of the arena, on the device.

    Raises:
        ComponentError: If the model and the arena disagree.
    """

    def __init__(
        self,
        arena: Arena,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        trust_remote_code: bool,
    ) -> None:
        self._arena, self._directory = arena, directory
        self._device, self._dtype = device, dtype
        place = f"arena {arena.path}"
        config = load_config(directory, place, trust_remote_code=trust_remote_code)
        self._skeleton: Skeleton = build_skeleton(
            config, place, directory / "config.json", trust_remote_code=trust_remote_code
        )
        self._dtypes = part_dtypes(arena, self._skeleton, dtype)
        self.flats = allocate(arena, self._dtypes, device)
        self._constants = read_constants(directory)

    def build(self) -> PreTrainedModel:
        """Return a new model over the buffers, in eval mode and without gradients.

        Raises:
            ComponentError: If transformers cannot build it as the arena needs it.
        """
        arena, device = self._arena, self._device
        flats = self.flats
        if device.type != "cpu":
            # Untouched pages of this memory cost nothing.
            flats = allocate(arena, self._dtypes, torch.device("cpu"))
        with quiet_transformers():
            # From a state dict of views: no initialization, no copy, and buffers, ties and
            # attention as from_pretrained makes them. Names and shapes are the model's own;
            # where a conversion of checkpoints strikes them nevertheless, they are bound below.
            try:
                model: PreTrainedModel = self._skeleton.model_class.from_pretrained(
                    None,
                    config=self._skeleton.config,
                    state_dict={**views(arena, flats), **self._constants},
                    dtype=self._dtype,
                    ignore_mismatched_sizes=True,
                )
            except Exception as error:  # whatever a model's own code raises
                what = f"transformers cannot load it ({one_line(error)})"
                remedy = "use a release of transformers that can"
                raise problem("arena", what, remedy, file=arena.path) from error
        # Save in the format of the model's class, as transformers does with a trained model.
        model._weight_conversions = None  # type: ignore[assignment]
        if (self._directory / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(self._directory)
        model.name_or_path = model.config.name_or_path = str(arena.path)
        self._bind(model)
        model.to(device)  # type: ignore[arg-type]  # what is left: buffers outside the checkpoint
        model.requires_grad_(False)
        model.train(False)
        return model

    def _bind(self, model: PreTrainedModel) -> None:
        """Point every parameter and persistent buffer at its view, or at its constant."""
        found = views(self._arena, self.flats)
        for name, tensor in model.state_dict(keep_vars=True).items():
            canonical = self._skeleton.canonical[name]
            value = found.get(canonical)
            if value is None:
                value = self._constants[canonical].to(self._device, copy=True)
            if tensor.dtype != value.dtype:
                what = f"the model keeps {name!r} in {dtype_name(tensor.dtype)}"
                remedy = f"ask for dtype={dtype_name(tensor.dtype)!r}"
                raise problem("arena", what, remedy, file=self._arena.path)
            tensor.data = value
