"""A report as files: the page and the note."""

from __future__ import annotations

from pathlib import Path

from optuna_demix._files import write_whole
from optuna_demix.errors import DemixError

PAGE = "report.html"
NOTE = "report.md"


def write_files(folder: Path, page: str, note: str) -> None:
    """Write ``report.html`` and ``report.md``, each whole or not at all.

    Args:
        folder: Made if it is not there.
        page: HTML.
        note: Markdown.

    Raises:
        DemixError: If the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / PAGE, page)
        write_whole(folder / NOTE, note)
    except OSError as error:
        raise DemixError(
            f"--out {folder}: cannot be written ({error.strerror}); check the path and the space"
        ) from None
