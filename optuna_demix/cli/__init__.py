"""The ``optuna-demix`` command: one module for each of its subcommands."""

from __future__ import annotations

from optuna_demix.cli._main import main

__all__ = [
    "main",
]
