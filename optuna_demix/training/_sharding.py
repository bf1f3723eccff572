"""FSDP2: parameters, gradients and optimizer states spread over the processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix.config import TrainingConfig
from optuna_demix.errors import ConfigError, DemixError, InputError
from optuna_demix.training._checkpoints import MARKER
from optuna_demix.training._files import read_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._processes import process_count

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer, TrainingArguments


def sharding_arguments(training: TrainingConfig) -> dict[str, Any]:
    """What TrainingArguments must know of the sharding; nothing where there is none."""
    if training.sharding == "none":
        return {}
    if training.compile:  # layer by layer: around a whole model no layer would be gathered
        os.environ["ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION"] = "true"
    os.environ["ACCELERATE_USE_FSDP"] = "true"  # one process of a host reads the base, for all
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "state_dict_type": f"{training.checkpoints.upper()}_STATE_DICT",
            "activation_checkpointing": training.gradient_checkpointing,
            "cpu_ram_efficient_loading": True,
        },
    }


def layout_of(training: TrainingConfig) -> dict[str, Any]:
    """How the checkpoints of a run are laid out, and by how many processes."""
    sharded = training.sharding != "none"
    return {
        "sharding": training.sharding,
        "checkpoints": training.checkpoints if sharded else "full",
        "processes": process_count(),
    }


def check_layout(job: Job, run: Run, checkpoint: Path) -> None:
    """Refuse to go on from a checkpoint of another layout; say so if processes have changed.

    Raises:
        ConfigError: If the checkpoint was written with another ``sharding`` or ``checkpoints``.
    """
    marker = read_json(checkpoint / MARKER) or {}
    for field, now in layout_of(job.training).items():
        then = marker.get(field, now)
        if then == now:
            continue
        if field != "processes":
            raise ConfigError(
                f"{job.config.source}: training.{field}: {run.name} was begun with {then}; set it "
                f"again, or remove {checkpoint.parent} to begin anew"
            )
        job.report(
            f"{run.name}: begun by {then} processes, {now} go on; its weights are the same up to "
            "rounding"
        )


def refine_sharding(job: Job, arguments: TrainingArguments) -> None:
    """Compute in bfloat16, but add gradients up in float32, which accelerate's default does not.

    Raises:
        ConfigError: If transformers is too old for FSDP2.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if getattr(arguments, "fsdp_plugin_args", None) is None:
        raise ConfigError(
            f"{job.config.source}: training.sharding: full needs a newer transformers; "
            "pip install -U transformers accelerate"
        )
    if arguments.bf16:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )


def shard_on_cpu(trainer: Trainer) -> None:
    """Let accelerate shard on a CPU too, where it would otherwise ignore its plugin.

    Raises:
        InputError: If there are other devices, on which PyTorch would put the shards.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if not trainer.args.fsdp or state.distributed_type != DistributedType.MULTI_CPU:
        return
    if torch.accelerator.is_available():
        raise InputError(
            "device cpu: training.sharding: full takes the GPUs that are here; give --device "
            "cuda, or hide them with CUDA_VISIBLE_DEVICES="
        )
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if trainer.args.bf16:
        plugin.set_mixed_precision("bf16")
    # Both: accelerate copies the one to the other whenever a part of it is made.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin
    trainer.is_fsdp_enabled = True


def check_sharded(model: nn.Module) -> None:
    """Refuse to train a model that should be sharded and is not: a library may fall back to DDP.

    Raises:
        DemixError: If a parameter is whole in each process.
    """
    from torch.distributed.tensor import DTensor

    whole = [name for name, p in model.named_parameters() if not isinstance(p, DTensor)]
    if whole:
        raise DemixError(
            f"training.sharding: full: {len(whole)} parameters, such as {whole[0]}, are not "
            "sharded here; set none"
        )
