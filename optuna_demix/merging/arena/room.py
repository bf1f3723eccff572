"""Whether the disk has room for an arena, before anything is read for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.merging._dtypes import as_dtype
from optuna_demix.merging._problem import problem, read_problem
from optuna_demix.merging.arena.deltas import block_bytes
from optuna_demix.merging.arena.layout import plan_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from optuna_demix.merging.arena.layout import Part
    from optuna_demix.merging.checkpoints.components import ComponentSet
    from optuna_demix.merging.methods.preparation import Preparation
    from optuna_demix.merging.methods.registry import MergeMethod


def check_room(
    components: ComponentSet, path: Path, *, method: MergeMethod, dtype: torch.dtype | str | None
) -> None:
    """Refuse a path whose disk is too small for the arena of these components.

    Args:
        components: As for :meth:`Arena.build`.
        path: The file; one that is there is taken to be the arena.
        method: As for :meth:`Arena.build`.
        dtype: As for :meth:`Arena.build`.

    Raises:
        ComponentError: Naming the size.
    """
    if path.exists():
        return
    storage = components.dtype if dtype is None else as_dtype(dtype)
    n_rows = method.preparation.n_rows(len(components.names))
    parts = plan_parts(components.tensors, storage, n_rows=n_rows)
    needed = blocks_bytes(parts, method.preparation, len(components.names))
    # The folder is made with the arena.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    check_space(folder, path, needed)


def blocks_bytes(parts: Sequence[Part], preparation: Preparation, n_components: int) -> int:
    """Return the size of all blocks of an arena."""
    return sum(
        part.layout.n_blocks * block_bytes(part, preparation, n_components) for part in parts
    )


def check_space(folder: Path, path: Path, needed: int, *, there: int = 0) -> None:
    """Refuse a disk that has less free than a file needs.

    Args:
        folder: A folder on that disk.
        path: The file, for messages.
        needed: Its size in bytes.
        there: Bytes of it that are written already.

    Raises:
        ComponentError: If that is so, or the disk cannot be asked.
    """
    try:
        free = shutil.disk_usage(folder).free + there
    except OSError as error:
        raise read_problem("arena", error, folder) from error
    if free < needed:
        what = f"needs {needed:,} bytes, but the disk has {free:,} free"
        raise problem("arena", what, "free space there or choose another path", file=path)
