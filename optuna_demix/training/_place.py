"""Put a trained model in its place, whole or not at all."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from optuna_demix._files import sync
from optuna_demix.training._files import sync_all, write_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._record import RECORD_FILE, weights_of
from optuna_demix.training.data.vocabulary import TOKENIZER_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def put_in_place(job: Job, run: Run, model: PreTrainedModel, record: dict[str, Any]) -> None:
    """Write model, tokenizer and record aside, then move them to the run's path at once."""
    aside = run.path.with_name(f".{run.path.name}.new")
    old = run.path.with_name(f".{run.path.name}.old")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
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
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if run.path.exists():
        run.path.rename(old)
    aside.rename(run.path)
    sync(run.path.parent)
    shutil.rmtree(old, ignore_errors=True)
