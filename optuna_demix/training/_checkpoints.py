"""Checkpoints of models that are being trained: which are whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from optuna_demix.training._files import read_json, write_json

MARKER = "complete.json"  # written last into a checkpoint


def open_partial(partial: Path, recipe: dict[str, Any]) -> None:
    """Make the directory of a run's checkpoints; drop those which cannot be resumed."""
    whole = newest_checkpoint(partial)
    if whole is not None and read_json(partial / "recipe.json") == recipe:
        for checkpoint in _checkpoints(partial):
            if checkpoint != whole:
                shutil.rmtree(checkpoint)
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_json(partial / "recipe.json", recipe)


def _checkpoints(partial: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    found = [p for p in partial.glob("checkpoint-*") if p.name[len("checkpoint-") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)


def newest_checkpoint(partial: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    for checkpoint in _checkpoints(partial):
        marker = read_json(checkpoint / MARKER)
        if marker is not None and all(
            (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
            for name, size in marker["files"].items()
        ):
            return checkpoint
    return None
