"""Writes a mixture as training frameworks read it: data shares in, the text of a file out.

A format is one function; a new one is added to :data:`FORMATS`, and to :data:`STAGED` where its
reader has stages.
"""

from __future__ import annotations

from optuna_demix.export.registry import FORMATS, STAGED, export, export_stages
from optuna_demix.export.sources import DataSource, Stage, left_out, rounded, sources_of

__all__ = [
    "FORMATS",
    "STAGED",
    "DataSource",
    "Stage",
    "export",
    "export_stages",
    "left_out",
    "rounded",
    "sources_of",
]
