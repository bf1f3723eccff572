"""The errors of components and arenas, all worded alike."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from optuna_demix._wording import one_line
from optuna_demix.errors import ComponentError

if TYPE_CHECKING:
    from pathlib import Path


def problem(place: str, what: str, remedy: str, *, file: Path | None = None) -> ComponentError:
    """Return the error ``place: file: what; remedy`` as one line, ready to be raised.

    Args:
        place: Who is at fault: ``component 'code'``, ``base`` or ``arena``.
        what: What is wrong, naming the tensor or field.
        remedy: What the user can do.
        file: The file at fault.
    """
    where = f"{place}: {file}" if file is not None else place
    return ComponentError(f"{where}: {what}; {remedy}")


def write_problem(place: str, error: OSError, file: Path) -> ComponentError:
    """Return the error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free space there or choose a path on a larger disk; nothing was left behind"
    else:
        remedy = "choose a path that can be written"
    return problem(place, f"cannot be written ({one_line(error)})", remedy, file=file)


def read_problem(place: str, error: OSError, file: Path) -> ComponentError:
    """Return the error for a file that could not be read."""
    return problem(
        place,
        f"cannot be read ({one_line(error)})",
        "check that it is there and readable",
        file=file,
    )
