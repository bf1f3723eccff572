"""Which models are trained already, and whether they are what the study asks for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training._checkpoints import newest_checkpoint
from optuna_demix.training._files import read_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._recipe import differences, digest_of
from optuna_demix.training._record import RECORD_FILE, read_record

RETRAIN_ENV = "OPTUNA_DEMIX_RETRAIN"
"""Environment variable: JSON of what :func:`to_retrain` gave the command that started this one."""


def to_retrain(runs: Sequence[Run], names: Sequence[str]) -> dict[str, str | None]:
    """The models to train again, each with a digest of the one that is there now.

    One that has another digest later was trained again, by this process or by another one.
    """
    if RETRAIN_ENV in os.environ:
        given: dict[str, str | None] = json.loads(os.environ[RETRAIN_ENV])
        return given
    return {run.name: _digest(read_record(run.path)) for run in runs if run.name in names}


class Ledger:
    """Which runs are done, and which must be refused because their recipe has changed.

    Args:
        job: What all runs share.
        retrain: Models to train again, as :func:`to_retrain` gives them.

    Attributes:
        records: Records of those that were found done.
    """

    def __init__(self, job: Job, retrain: Mapping[str, str | None]) -> None:
        self._job = job
        self._retrain = retrain
        self.records: dict[str, dict[str, Any]] = {}

    def pending(self, runs: Sequence[Run], recipes: Mapping[str, dict[str, Any]]) -> list[Run]:
        """Those of the runs that are not done.

        Raises:
            ConfigError: If one was trained or begun with another recipe, or was not made here.
        """
        stale: dict[str, str] = {}
        todo = []
        for run in runs:
            recipe = recipes[run.name]
            record = read_record(run.path)
            begun = self._begun(run)
            if record is None and _is_occupied(run.path):
                record = read_record(run.path)  # it may have come since
                if record is None:
                    raise ConfigError(
                        f"{run.path}: is there, but was not made by train (no {RECORD_FILE}); "
                        f"move it away, or take {run.section} for {run.name} out of the study"
                    )
            if self._retrain.get(run.name, "") == _digest(record):
                todo.append(run)
                continue
            if record is not None:
                self.records[run.name] = record
                changes = differences(record["recipe"], recipe)
                if not changes:
                    changes = _damages(run.path, record)
            else:
                todo.append(run)
                changes = [] if begun is None else differences(begun, recipe)
            if changes:
                stale[run.name] = ", ".join(changes[:3])
        if stale:
            told = "; ".join(f"{name}: {what}" for name, what in list(stale.items())[:3])
            flags = " ".join(f"--retrain {name}" for name in stale)
            raise ConfigError(
                f"{self._job.config.source}: models were trained with another recipe: {told}"
                + (f"; and {len(stale) - 3} more" if len(stale) > 3 else "")
                + f"; undo the change, or train them again with {flags}"
            )
        return todo

    def _begun(self, run: Run) -> dict[str, Any] | None:
        """The recipe of a half trained model, if it can be resumed."""
        partial = self._job.partial(run)
        try:
            return read_json(partial / "recipe.json") if newest_checkpoint(partial) else None
        except FileNotFoundError:
            return None  # another process has just dropped an old checkpoint, or is done


def _digest(record: Mapping[str, Any] | None) -> str | None:
    return None if record is None else digest_of(record)


def _is_occupied(path: Path) -> bool:
    try:
        return any(path.iterdir())
    except FileNotFoundError:
        return False


def _damages(path: Path, record: Mapping[str, Any]) -> list[str]:
    for name, facts in record.get("weights", {}).items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return [f"{name} is missing or cut short"]
    return []
