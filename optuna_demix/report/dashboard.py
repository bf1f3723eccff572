"""Show a report in ``optuna-dashboard``: figures and note of the study's page."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from optuna_demix.errors import DemixError
from optuna_demix.report.note import merge_note

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plotly.graph_objects as go
    from optuna.study import Study


def is_available() -> bool:
    """Whether ``optuna-dashboard`` and plotly are installed; neither is imported."""
    names = ("optuna_dashboard", "plotly")
    return all(importlib.util.find_spec(name) is not None for name in names)


def require_available() -> None:
    """Check that ``optuna-dashboard`` and plotly are installed.

    Raises:
        DemixError: If they are not, with the command that installs them.
    """
    if not is_available():
        raise DemixError(
            "a report needs optuna-dashboard and plotly; pip install 'optuna-demix[dashboard]'"
        )


def push(study: Study, figures: Mapping[str, go.Figure], note: str) -> None:
    """Write figures and note to a study, in place of those of the last report.

    What people have written to the note is kept. A figure takes several writes, and whoever
    reads between them sees none, until the page is refreshed by itself.

    Args:
        study: The study.
        figures: By identifier.
        note: Markdown.
    """
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object

    for identifier, figure in figures.items():
        save_plotly_graph_object(study, figure, graph_object_id=identifier)
    text = merge_note(get_note(study), note)
    save_note(study, text)
