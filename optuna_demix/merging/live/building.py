"""Build the transformers model whose parameters are views of given memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GenerationConfig

from optuna_demix._wording import one_line
from optuna_demix.merging._dtypes import dtype_name
from optuna_demix.merging._problem import problem
from optuna_demix.merging._quiet import quiet_accelerate, quiet_transformers
from optuna_demix.merging.checkpoints.skeleton import Skeleton, build_skeleton, load_config
from optuna_demix.merging.live.buffers import allocate, part_dtypes, read_constants, views
from optuna_demix.merging.live.extents import plan_extents
from optuna_demix.merging.live.memory import as_device, check_fits
from optuna_demix.merging.live.placement import find_placement

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from optuna_demix.merging.arena.arena import Arena
    from optuna_demix.merging.live.placement import DeviceMap


class ModelBuilder:
    """Builds models of one arena, all over the same buffers.

    Args:
        arena: The components.
        directory: The arena's unpacked files.
        device: Where the models live, as a device map.
        dtype: Element type of the parameters, but for those that the model keeps in another one.
        trust_remote_code: Let the model run code that came with the components.

    Attributes:
        placement: Where each module lives.
        extents: Which blocks each device merges.
        flats: A flat buffer for each of them, on that device.

    Raises:
        ComponentError: If the model and the arena disagree, the device map does not fit the
            model, or the model is larger than the free memory.
    """

    def __init__(
        self,
        arena: Arena,
        directory: Path,
        device: DeviceMap,
        dtype: torch.dtype,
        *,
        trust_remote_code: bool,
    ) -> None:
        self._arena, self._directory = arena, directory
        self._dtype = dtype
        place = f"arena {arena.path}"
        config = load_config(directory, place, trust_remote_code=trust_remote_code)
        self._skeleton: Skeleton = build_skeleton(
            config, place, directory / "config.json", trust_remote_code=trust_remote_code
        )
        of_parts = part_dtypes(arena, self._skeleton, dtype)
        self.placement = find_placement(device, self._skeleton, dtype)
        self.extents = plan_extents(arena.parts, self.placement)
        self._dtypes = [of_parts[extent.number] for extent in self.extents]
        check_fits(self.extents, self._dtypes, dtype)
        self.flats = allocate(self.extents, self._dtypes)
        self._constants = read_constants(directory)

    def build(self) -> PreTrainedModel:
        """Return a new model over the buffers, in eval mode and without gradients.

        Raises:
            ComponentError: If transformers cannot build it as the arena needs it.
        """
        arena, flats = self._arena, self.flats
        if any(flat.device.type != "cpu" for flat in flats):
            # Untouched pages of this memory cost nothing.
            flats = allocate(self.extents, self._dtypes, on_cpu=True)
        with quiet_transformers():
            # From a state dict of views: no initialization, no copy, and buffers, ties and
            # attention as from_pretrained makes them. Names and shapes are the model's own;
            # where a conversion of checkpoints strikes them nevertheless, they are bound below.
            try:
                model: PreTrainedModel = self._skeleton.model_class.from_pretrained(
                    None,
                    config=self._skeleton.config,
                    state_dict={**views(self.extents, flats), **self._constants},
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
        self._dispatch(model)
        model.requires_grad_(False)
        model.train(False)
        return model

    def _bind(self, model: PreTrainedModel) -> None:
        """Point every parameter and persistent buffer at its view, or at its constant."""
        found = views(self.extents, self.flats)
        for name, tensor in model.state_dict(keep_vars=True).items():
            canonical = self._skeleton.canonical[name]
            value = found.get(canonical)
            if value is None:
                device = as_device(self.placement.device_of(canonical) or self.placement.main)
                value = self._constants[canonical].to(device, copy=True)
            if tensor.dtype != value.dtype:
                what = f"the model keeps {name!r} in {dtype_name(tensor.dtype)}"
                remedy = f"ask for dtype={dtype_name(tensor.dtype)!r}"
                raise problem("arena", what, remedy, file=self._arena.path)
            tensor.data = value

    def _dispatch(self, model: PreTrainedModel) -> None:
        """Move what is left, buffers outside the checkpoint; let activations follow modules."""
        main = as_device(self.placement.main)
        if len(self.placement.devices) == 1:
            model.to(main)  # type: ignore[arg-type]
            return
        from accelerate import dispatch_model

        devices = self.placement.disjoint(model)
        for name, buffer in model.named_buffers():
            if name in devices:  # of a module that is divided, which no hook moves
                buffer.data = buffer.data.to(devices[name])
        with quiet_accelerate():
            dispatch_model(
                model,
                devices,
                # Modules of a map run where they lie, on a CPU too: none of them is offloaded.
                main_device=main,
                skip_keys=model._skip_keys_device_placement,
                force_hooks=True,
            )
        # Logits stay on the device of the head: they are large, and read there.
        model._hf_hook.io_same_device = False  # type: ignore[union-attr]
