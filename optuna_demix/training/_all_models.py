"""Trains the models of a study in turn; those that exist are skipped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job, Run
from optuna_demix.training._ledger import Ledger
from optuna_demix.training._model import scratch_config
from optuna_demix.training._one_model import train_one
from optuna_demix.training._progress import training_progress
from optuna_demix.training._recipe import recipe_of
from optuna_demix.training._record import base_digest, read_record, trained_model
from optuna_demix.training._results import TrainedModel
from optuna_demix.training._signals import TrainingStop
from optuna_demix.training.data.corpus import corpus_of
from optuna_demix.training.data.order import repetitions
from optuna_demix.training.data.tokens import blocks_of


def train_all(job: Job, runs: list[Run], retrain: frozenset[str]) -> list[TrainedModel]:
    """Train those of the runs that are not done.

    Returns:
        All models of ``runs``, in that order.
    """
    names = sorted({name for run in runs for name in run.shares})
    corpora = {name: corpus_of(job.config, name) for name in names}
    ledger = Ledger(job, retrain)
    base = base_digest(job.config)

    def recipes(base: str | None) -> dict[str, dict[str, Any]]:
        return {run.name: recipe_of(job, run, corpora, base) for run in runs}

    first = [run for run in runs if run.is_base]
    # What starts from a base that is still to be trained is compared without it, and again later.
    base_is_new = bool(ledger.pending(first, recipes(None)))
    todo = ledger.pending(runs, recipes(None if base_is_new else base))
    if base is None and not base_is_new and any(not run.is_base for run in runs):
        _refuse_without_base(job)
    if base_is_new:
        scratch_config(job)
    for run in runs:
        if run not in todo:
            job.report(f"{run.name}: is there already")
    blocks = {
        name: blocks_of(job, corpora[name])
        for name in names
        if any(name in run.shares for run in todo)
    }
    for line in repetitions(job, todo, blocks):
        job.report(line)
    step_tokens = job.block_tokens * job.training.batch_size
    total = sum(run.steps for run in todo) * step_tokens
    results: dict[str, TrainedModel] = {}
    with (
        _quiet_transformers(),
        TrainingStop() as stop,
        training_progress(total, job.report) as meter,
    ):
        for run in todo:
            if stop.requested:
                raise stop.error(f"before {run.name}")
            recipe = recipe_of(job, run, corpora, base)
            record = train_one(job, run, recipe, blocks, stop, meter)
            results[run.name] = trained_model(run, record, skipped=False)
            ledger.trained(run)
            if run.is_base:
                base = base_digest(job.config)
                ledger.pending(runs, recipes(base))
    for run in runs:
        if run.name not in results:
            record_there = read_record(run.path)
            assert record_there is not None  # the ledger has read it
            results[run.name] = trained_model(run, record_there, skipped=True)
    return [results[run.name] for run in runs]


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
