"""Writes a mixture as training frameworks read it: data shares in, the text of a file out.

A format is one function; a new one is added to :data:`FORMATS`.
"""

from __future__ import annotations

from optuna_demix.export.formats import FORMATS, export
from optuna_demix.export.sources import DataSource, left_out, rounded, sources_of

__all__ = ["FORMATS", "DataSource", "export", "left_out", "rounded", "sources_of"]
