"""A report as files: a page with all figures, and the note."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._files import write_whole
from optuna_demix.errors import DemixError

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAGE = "report.html"
NOTE = "report.md"
_SCRIPT = "plotly.min.js"

_STYLE = """\
body { font-family: sans-serif; color: #333f48; margin: 1.5em auto; max-width: 1420px; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(560px, 1fr)); gap: 1em; }
section { border: 1px solid #ddd; border-radius: 4px; padding: .5em; }"""


def write_files(folder: Path, figures: Mapping[str, go.Figure], note: str, *, title: str) -> None:
    """Write ``report.html`` with all figures, plotly's script beside it, and ``report.md``.

    The page needs no network. Each file appears whole or not at all.

    Args:
        folder: Made if it is not there.
        figures: By identifier.
        note: Markdown.
        title: Heading of the page.

    Raises:
        DemixError: If the folder cannot be written to.
    """
    from plotly.offline import get_plotlyjs

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _SCRIPT, get_plotlyjs())
        write_whole(folder / PAGE, page(figures, title=title))
        write_whole(folder / NOTE, note)
    except OSError as error:
        raise DemixError(
            f"--out {folder}: cannot be written ({error.strerror}); check the path and the space"
        ) from None


def page(figures: Mapping[str, go.Figure], *, title: str) -> str:
    """One HTML page of figures, in order."""
    from plotly.io import to_html

    sections = "\n".join(
        f"<section>{to_html(figure, full_html=False, include_plotlyjs=False, div_id=name)}"
        "</section>"
        for name, figure in figures.items()
    )
    heading = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{heading}</title>\n<style>\n{_STYLE}\n</style>\n"
        f'<script src="{_SCRIPT}"></script>\n</head>\n<body>\n<h1>{heading}</h1>\n'
        f"<main>\n{sections}\n</main>\n</body>\n</html>\n"
    )
