"""What a study has found, to look at: plots and a note, in ``optuna-dashboard`` or as files."""

from __future__ import annotations

from optuna_demix.report.data import ReportData, gather
from optuna_demix.report.note import write_note
from optuna_demix.report.plots._figures import figures

__all__ = ["ReportData", "figures", "gather", "write_note"]
