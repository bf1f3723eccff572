"""Train one model, or the rest of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from optuna_demix.training._checkpoints import newest_checkpoint, open_partial
from optuna_demix.training._job import Job, Run
from optuna_demix.training._lease import Lease, LeaseLostError
from optuna_demix.training._model import start_model
from optuna_demix.training._pilot import Pilot
from optuna_demix.training._place import put_in_place
from optuna_demix.training._processes import agreed, wait_for_all
from optuna_demix.training._progress import Progress
from optuna_demix.training._record import make_record, read_record
from optuna_demix.training._sharding import check_layout
from optuna_demix.training._signals import TrainingStop
from optuna_demix.training._trainer import make_arguments, make_trainer
from optuna_demix.training._weights import snapshot_file, take_mean, whole_model
from optuna_demix.training.data.blocks import Blocks
from optuna_demix.training.data.order import Rows, draw_order, realized_data


def train_one(
    job: Job,
    run: Run,
    recipe: dict[str, Any],
    blocks: Mapping[str, Blocks],
    stop: TrainingStop,
    meter: Progress,
    *,
    lease: Lease | None,
    group: Any,
) -> dict[str, Any]:
    """Train one model, or the rest of it, and put it in its place.

    Args:
        job: What all runs share.
        run: The model.
        recipe: Its recipe.
        blocks: Blocks of tokens of its datasets.
        stop: Where requests to stop are noted.
        meter: The progress of training.
        lease: The lease on training it, which the process of rank 0 holds.
        group: All processes that train it; see :func:`signal_group`.

    Returns:
        Its record.

    Raises:
        LeaseLostError: If another process has taken the model over.
    """
    partial = job.partial(run)
    arguments = make_arguments(job, run, partial)
    before = read_record(run.path)
    if lease is not None:
        open_partial(partial, recipe)
    wait_for_all(arguments)
    checkpoint = newest_checkpoint(partial)
    if checkpoint is not None:
        check_layout(job, run, checkpoint)
    model, dtype = start_model(job, run)
    available = [len(blocks[name]) for name in run.shares]
    order = draw_order(run, available, job.training.seed, job.training.batch_size)
    data = realized_data(run, order, available, job.block_tokens)
    pilot = Pilot(job, run, stop, meter, checkpoint, lease)
    rows = Rows([blocks[name] for name in run.shares], order)
    trainer = make_trainer(run, arguments, model, rows, pilot)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if pilot.lost:
        raise LeaseLostError(run.name)
    if pilot.stopped:
        raise stop.error(f"after step {trainer.state.global_step} of {run.steps} of {run.name}")
    if trainer.state.global_step != run.steps:
        raise RuntimeError(f"{run.name}: {trainer.state.global_step} steps of {run.steps}")
    record = make_record(job, run, recipe, data, trainer, pilot)
    whole = whole_model(trainer, model)
    placed = True
    if lease is not None and whole is not None:
        if pilot.snapshots:
            take_mean(whole, [snapshot_file(partial, step) for step in pilot.snapshots])
        try:
            put_in_place(job, run, whole.to(dtype), record, lease=lease, before=before)
        except LeaseLostError:
            placed = False
        if placed and lease.holds():
            shutil.rmtree(partial, ignore_errors=True)
    if not agreed(placed, group):
        raise LeaseLostError(run.name)
    meter.say(
        f"{run.name}: {run.steps:,} steps, {record['tokens']:,} tokens in "
        f"{record['seconds']:.1f} s ({record['tokens_per_second']:,.0f} tokens/s), "
        f"loss {record['final_loss']:.4f}"
    )
    return record
