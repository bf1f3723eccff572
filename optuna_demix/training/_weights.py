"""The weights of a model in training: gathered from the processes, kept on the way, averaged."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix._files import sync
from optuna_demix.training._model import causal_models
from optuna_demix.training._processes import rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


def whole_model(trainer: Trainer, model: PreTrainedModel) -> PreTrainedModel | None:
    """The model in one piece; every process must ask for it.

    Args:
        trainer: What trains it.
        model: The model that the trainer was given, by now perhaps sharded.

    Returns:
        The model, float32; None in all processes but the first where it had to be gathered.
    """
    if not trainer.args.fsdp:
        return model
    import torch

    state = trainer.accelerator.get_state_dict(trainer.model)
    if rank() != 0:
        return None
    with torch.device("meta"):
        whole: PreTrainedModel = causal_models().from_config(model.config)
    whole.load_state_dict(state, assign=True)
    whole.tie_weights()
    whole.generation_config = model.generation_config
    return whole


def snapshot_file(partial: Path, step: int) -> Path:
    """Where the weights after a step are kept for the mean."""
    return partial / "snapshots" / f"{step}.safetensors"


def keep_snapshot(file: Path, model: PreTrainedModel) -> None:
    """Write a model's parameters, whole or not at all."""
    from safetensors.torch import save_file

    file.parent.mkdir(exist_ok=True)
    aside = file.with_name(f".{file.name}.new")
    try:
        save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, aside)
        sync(aside)
        aside.rename(file)
        sync(file.parent)
    finally:
        aside.unlink(missing_ok=True)


def take_mean(model: PreTrainedModel, files: Sequence[Path]) -> None:
    """Put the mean of snapshots into a model, one parameter at a time, in float32."""
    import torch
    from safetensors import safe_open

    with contextlib.ExitStack() as stack, torch.no_grad():
        opened: list[Any] = [
            stack.enter_context(safe_open(file, framework="pt")) for file in files
        ]
        for name, parameter in model.named_parameters():
            total = torch.zeros(parameter.shape, dtype=torch.float32)
            for snapshot in opened:
                total += snapshot.get_tensor(name)
            parameter.copy_(total / len(files))
