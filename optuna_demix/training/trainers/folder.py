"""Writes a plan's folder: whole files, and none that somebody has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from optuna_demix._files import write_whole
from optuna_demix._wording import one_line
from optuna_demix.errors import DemixError, InputError
from optuna_demix.training._files import read_json

MANIFEST = "plan.json"
"""Digests of the files of a plan as it wrote them."""


def write_files(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write the files of a plan, and remove those of an earlier one that it has no more.

    Args:
        folder: The plan's folder.
        files: Texts by path inside it.
        force: Replace also what was not written by a plan, or changed since.

    Raises:
        InputError: Before anything is written, if such a file is in the way.
        DemixError: If a file cannot be written.
    """
    known = (read_json(folder / MANIFEST) or {}).get("files", {})
    stale = [name for name in known if name not in files and _digest(folder / name) == known[name]]
    for name, text in files.items():
        found = _digest(folder / name)
        if not force and found not in (None, known.get(name), _of(text.encode())):
            raise InputError(
                f"{folder / name}: is not as a plan wrote it; move it away, or give --force to "
                "replace it"
            )
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, text)
        manifest = {"files": {name: _of(text.encode()) for name, text in files.items()}}
        write_whole(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for name in stale:
            (folder / name).unlink()
    except OSError as error:
        raise DemixError(
            f"{error.filename or folder}: cannot be written "
            f"({error.strerror or one_line(error)}); check the path and the space"
        ) from None


def _digest(file: Path) -> str | None:
    try:
        return _of(file.read_bytes())
    except OSError:
        return None


def _of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
