"""Trains the models of a study in turn; those that exist are skipped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job, Run
from optuna_demix.training._model import scratch_config
from optuna_demix.training._progress import training_progress
from optuna_demix.training._record import trained_model
from optuna_demix.training._results import TrainedModel
from optuna_demix.training._signals import TrainingStop
from optuna_demix.training._standing import Standing
from optuna_demix.training._turns import Turns, await_base, tokenize_all
from optuna_demix.training.data.corpus import corpus_of
from optuna_demix.training.data.order import repetitions


def train_all(job: Job, runs: list[Run], retrain: Mapping[str, str | None]) -> list[TrainedModel]:
    """Train those of the runs that are not done, beside other processes that do the same.

    Args:
        job: What all runs share.
        runs: The runs.
        retrain: Models to train again, as :func:`to_retrain` gives them.

    Returns:
        All models of ``runs``, in that order.
    """
    names = sorted({name for run in runs for name in run.shares})
    corpora = {name: corpus_of(job.config, name) for name in names}
    has_own_base = any(run.is_base for run in runs)
    if not has_own_base:
        await_base(job)
    standing = Standing(job, runs, corpora, retrain)
    if runs and not standing.has_base:
        _refuse_without_base(job)
    todo = standing.todo
    if standing.base_is_new:
        scratch_config(job)
    for run in runs:
        if run not in todo:
            job.report(f"{run.name}: is there already")
    needed = [name for name in names if any(name in run.shares for run in todo)]
    blocks = tokenize_all(job, corpora, needed)
    for line in repetitions(job, todo, blocks):
        job.report(line)
    step_tokens = job.block_tokens * job.training.batch_size
    total = sum(run.steps for run in todo) * step_tokens
    with (
        _quiet_transformers(),
        TrainingStop() as stop,
        training_progress(total, job.report) as meter,
    ):
        trained, found = Turns(job, runs, standing, blocks, stop, meter).take_all()
    return [
        trained_model(
            run,
            trained.get(run.name) or found[run.name],
            skipped=run.name not in trained,
        )
        for run in runs
    ]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' own bars and log level out of the way, and put them back."""
    from transformers.utils import logging as module

    logging: Any = module
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_without_base(job: Job) -> None:
    config = job.config
    if job.training.base is not None:
        raise ConfigError(
            f"{config.base_path}: the base is not trained yet; train it first (--only base)"
        )
    field = "base" if config.base else "training.base"
    raise ConfigError(
        f"{config.source}: {field}: there is no base checkpoint in {config.base_path}; give the "
        "path of one, or training.base and training.model to train one"
    )
