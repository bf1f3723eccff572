"""Checkpoints of models that are being trained: which are whole, and who may write them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna_demix.errors import DemixError
from optuna_demix.training._files import read_json, write_json
from optuna_demix.training._job import Run

MARKER = "complete.json"  # written last into a checkpoint


@contextlib.contextmanager
def exclusive(partial: Path, run: Run) -> Iterator[None]:
    """Hold the lock on training a model; the lock of a killed process is released."""
    from filelock import FileLock, Timeout

    file = partial.with_name(f".{partial.name}.lock")  # a model's name never begins with a dot
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DemixError(
            f"{run.name} is being trained by another process (it holds {file}); wait for it, or "
            "train others with --only"
        ) from None
    try:
        yield
    finally:
        lock.release()


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
