"""From folders of data or checkpoints to a ``study.yaml`` that can be searched.

What lies there is inspected, tasks are looked up, and the rest follows from rules that say what
they did: a *draft*, plain data, from which text with comments is made. The text is read and
checked as any study before it is written.
"""

from __future__ import annotations

from optuna_demix.starting.benchmarks import Benchmarks, choose_benchmarks
from optuna_demix.starting.draft import Draft
from optuna_demix.starting.making import (
    Found,
    Wishes,
    exists,
    inspect,
    make_draft,
    write_study,
)
from optuna_demix.starting.sizes import read_number
from optuna_demix.starting.text import study_text

__all__ = [
    "Benchmarks",
    "Draft",
    "Found",
    "Wishes",
    "choose_benchmarks",
    "exists",
    "inspect",
    "make_draft",
    "read_number",
    "study_text",
    "write_study",
]
