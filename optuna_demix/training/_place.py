"""Put a trained model in its place, whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna_demix._files import sync
from optuna_demix.training._files import sync_all, write_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._lease import Lease, LeaseLostError
from optuna_demix.training._record import RECORD_FILE, read_record, weights_of
from optuna_demix.training.data.vocabulary import TOKENIZER_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def put_in_place(
    job: Job,
    run: Run,
    model: PreTrainedModel,
    record: dict[str, Any],
    *,
    lease: Lease,
    before: Mapping[str, Any] | None,
) -> None:
    """Write model, tokenizer and record aside, then move them to the run's path at once.

    Of several processes that try, the file system lets one through: a folder cannot be renamed
    to one that is not empty. Only to replace a model, another one is moved away first; a process
    that falls asleep just there puts a second model of the same recipe in the place of the first.

    Args:
        job: What all runs share.
        run: The run.
        model: Its model.
        record: Its record.
        lease: The lease on training it.
        before: Record of the model that was there when its training began, and is replaced.

    Raises:
        LeaseLostError: If another process has taken the run over.
    """
    aside = run.path.with_name(f".{run.path.name}.{lease.token}.new")
    old = run.path.with_name(f".{run.path.name}.{lease.token}.old")
    _drop_leftovers(run)
    try:
        aside.mkdir(parents=True)
        model.config.use_cache = True  # Trainer has turned it off
        model.save_pretrained(str(aside))
        for name in TOKENIZER_FILES:
            if (job.vocabulary.path / name).is_file():
                shutil.copyfile(job.vocabulary.path / name, aside / name)
        record["weights"] = weights_of(aside)
        write_json(aside / RECORD_FILE, record)
        sync_all(aside)
        lease.check()
        if read_record(run.path) != before:
            raise LeaseLostError(str(run.path))
        if before is not None:
            run.path.rename(old)
        aside.rename(run.path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(run.path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _drop_leftovers(run: Run) -> None:
    """Delete what earlier holders of the lease left aside."""
    name = re.compile(rf"\.{re.escape(run.path.name)}\.[0-9a-f]{{16}}\.(new|old)")
    if run.path.parent.is_dir():
        for leftover in run.path.parent.iterdir():
            if name.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
