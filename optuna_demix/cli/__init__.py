"""The ``optuna-demix`` command: one module for each subcommand, with its options and its action.

A subcommand reads its options, calls the packages below and prints what they return; errors become
one line and an exit status in ``_main``.
"""

from __future__ import annotations

from optuna_demix.cli._main import main

__all__ = [
    "main",
]
