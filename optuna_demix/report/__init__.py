"""Shows what a study has found: figures and a note, in ``optuna-dashboard`` or as files.

:func:`gather` reads a study once into :class:`ReportData`; figures and note are pure functions of
it.
"""

from __future__ import annotations

from optuna_demix.report.data import ReportData, gather
from optuna_demix.report.note import write_note
from optuna_demix.report.plots._figures import figures

__all__ = ["ReportData", "figures", "gather", "write_note"]
