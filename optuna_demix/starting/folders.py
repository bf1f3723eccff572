"""What lies in a folder that the user has named."""

from __future__ import annotations

import os
from pathlib import Path

from optuna_demix.errors import InputError


def listed(folder: Path, flag: str) -> list[Path]:
    """What a folder holds, hidden files left out, in the order of the names.

    Args:
        folder: The folder.
        flag: The option that names it, for messages.

    Raises:
        InputError: If it is no folder, or cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except NotADirectoryError:
        raise InputError(f"{flag} {folder}: is a file; give the folder it lies in") from None
    except FileNotFoundError:
        raise InputError(f"{flag} {folder}: no such folder; correct the path") from None
    except OSError as error:
        raise InputError(
            f"{flag} {folder}: cannot be read ({error.strerror}); check its rights"
        ) from None


def relative(path: Path, folder: Path) -> str:
    """A path as a study in a folder names it: relative if it lies there, else absolute.

    Raises:
        InputError: If its bytes are no text, which no study could hold.
    """
    absolute = Path(os.path.abspath(path))
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{ascii(str(path))}: the name is not UTF-8, and a study cannot hold it; rename it"
        ) from None
    home = Path(os.path.abspath(folder))
    if absolute == home or not absolute.is_relative_to(home):
        return str(absolute)
    inside = absolute.relative_to(home).as_posix()
    return str(absolute) if inside.startswith("~") else inside  # else it is somebody's home
