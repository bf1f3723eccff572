"""transformers' Trainer, with our order of blocks and our rules for saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optuna_demix._wording import last_line
from optuna_demix.errors import ConfigError, DemixError
from optuna_demix.training._job import Job, Run
from optuna_demix.training._pilot import Pilot
from optuna_demix.training._processes import process_count, rank, wait_for_all
from optuna_demix.training._schedule import own_rate, schedule_arguments
from optuna_demix.training._sharding import (
    check_sharded,
    refine_sharding,
    shard_on_cpu,
    sharding_arguments,
)
from optuna_demix.training._weights import keep_snapshot, snapshot_file, whole_model
from optuna_demix.training.data.order import Rows

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


def make_arguments(job: Job, run: Run, partial: Path) -> TrainingArguments:
    """Settings of Trainer for one run."""
    from transformers import TrainingArguments

    training, processes = job.training, process_count()
    if training.batch_size % processes:
        raise ConfigError(
            f"{job.config.source}: training.batch_size: {training.batch_size} cannot be shared "
            f"by {processes} processes; give a multiple"
        )
    sharding = sharding_arguments(training)
    memory: dict[str, Any] = {}
    if training.gradient_checkpointing and not sharding:
        renamed = hasattr(TrainingArguments, "activation_checkpointing")  # after transformers 5.19
        memory["activation_checkpointing" if renamed else "gradient_checkpointing"] = True
    try:
        arguments = TrainingArguments(
            output_dir=str(partial),
            max_steps=run.steps,
            per_device_train_batch_size=training.batch_size // processes,
            **schedule_arguments(run),
            **sharding,
            **memory,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            bf16=training.bf16,
            torch_compile=training.compile,
            seed=training.seed,
            use_cpu=job.device == "cpu",
            train_sampling_strategy="sequential",  # the order is ours
            remove_unused_columns=False,
            dataloader_pin_memory=job.device != "cpu",
            ddp_find_unused_parameters=False,
            # The pilot says when to log and to save.
            logging_strategy="no",
            save_strategy="no",
            save_total_limit=2,  # the last may be cut short by a crash
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_nan_inf_filter=False,
            log_level="error",
        )
        if arguments.device.type == "cpu":
            arguments.dataloader_pin_memory = False
    except ValueError as error:
        raise ConfigError(
            f"{job.config.source}: training: this device cannot run it ({last_line(error)})"
        ) from None
    if sharding:
        refine_sharding(job, arguments)
    if arguments.n_gpu > 1:
        launch = f"torchrun --nproc-per-node {arguments.n_gpu}"
        job.report(f"{run.name}: one GPU of {arguments.n_gpu} is used; {launch} uses all")
        arguments._n_gpu = 1  # else Trainer splits each batch among threads
    return arguments


def make_trainer(
    run: Run, arguments: TrainingArguments, model: Any, rows: Rows, pilot: Pilot
) -> Trainer:
    """Build the Trainer of one run, steered by its pilot."""
    import torch
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import PrinterCallback, Trainer, TrainerCallback

    class Hooks(TrainerCallback):
        """Tells the pilot what Trainer does."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.fsdp:
                check_sharded(kwargs["model"])
            pilot.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in pilot.snapshots:
                whole = whole_model(trainer, model)
                if rank() == 0 and whole is not None and pilot.may_write():
                    keep_snapshot(snapshot_file(Path(args.output_dir), state.global_step), whole)
            pilot.step(state.global_step, control)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                pilot.log(state.global_step, kwargs["logs"]["loss"])

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wait_for_all(arguments)
            if rank() == 0:
                pilot.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    class LeanTrainer(Trainer):
        """Trainer without the count of operations, which walks over the model at every step."""

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            shard_on_cpu(self)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            rate = own_rate(run)
            if rate is not None and self.lr_scheduler is None:
                steered: Any = self.optimizer if optimizer is None else optimizer
                self.lr_scheduler = LambdaLR(steered, rate)
                self._created_lr_scheduler = True
            return super().create_scheduler(num_training_steps, optimizer)

    def collate(batch: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(batch)  # (b, sequence_length)
        return {"input_ids": tokens, "labels": tokens}  # the model shifts them

    trainer = LeanTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # has all that DataLoader asks for
        data_collator=collate,  # type: ignore[arg-type]
        callbacks=[Hooks()],
    )
    if trainer.is_deepspeed_enabled or (trainer.is_fsdp_enabled and not arguments.fsdp):
        raise DemixError(
            "the launcher's own sharding (FSDP, DeepSpeed) is not supported; launch with torchrun "
            "and set training.sharding: full"
        )
    trainer.remove_callback(PrinterCallback)
    # All blocks are full: the mean over a batch is the mean over its tokens, nothing to count.
    trainer.model_accepts_loss_kwargs = False
    return trainer
