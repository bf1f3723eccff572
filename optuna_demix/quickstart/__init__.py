"""The quickstart: a mixture search of five real domains that is small enough for a laptop.

Its text, tasks and ``study.yaml`` come with the package; :func:`prepare` writes them into a
folder.
"""

from __future__ import annotations

from optuna_demix.quickstart.preparation import STUDY_FILE, prepare
from optuna_demix.quickstart.sources import SourceError

__all__ = ["STUDY_FILE", "SourceError", "prepare"]
