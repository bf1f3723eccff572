"""Which models are trained already, and whether they are what the study asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna_demix.errors import ConfigError
from optuna_demix.training._checkpoints import newest_checkpoint
from optuna_demix.training._files import read_json
from optuna_demix.training._job import Job, Run
from optuna_demix.training._recipe import differences
from optuna_demix.training._record import RECORD_FILE, read_record


class Ledger:
    """Which runs are done, and which must be refused because their recipe has changed."""

    def __init__(self, job: Job, retrain: frozenset[str]) -> None:
        self._job = job
        self._retrain = set(retrain)

    def trained(self, run: Run) -> None:
        """Note that a run which was to be repeated is done."""
        self._retrain.discard(run.name)

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
            if record is None and run.path.exists() and any(run.path.iterdir()):
                raise ConfigError(
                    f"{run.path}: is there, but was not made by train (no {RECORD_FILE}); move "
                    f"it away, or take {run.section} for {run.name} out of the study"
                )
            if run.name in self._retrain:
                todo.append(run)
                continue
            if record is not None:
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
        return read_json(partial / "recipe.json") if newest_checkpoint(partial) else None


def _damages(path: Path, record: Mapping[str, Any]) -> list[str]:
    for name, facts in record.get("weights", {}).items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return [f"{name} is missing or cut short"]
    return []
