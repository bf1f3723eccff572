"""A mixture as training frameworks read it: data shares in, text out."""

from __future__ import annotations

from optuna_demix.export.formats import FORMATS, export
from optuna_demix.export.sources import Source, rounded, sources_of

__all__ = ["FORMATS", "Source", "export", "rounded", "sources_of"]
