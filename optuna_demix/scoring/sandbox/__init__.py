"""Code that a model wrote runs here: processes that reach nothing but themselves.

``client`` is the worker's end. It starts a ``server`` in a ``jail``, which imports the tasks'
modules and runs each call of a metric, and each of ``code_eval``'s ``programs``, in a ``cell``.
All but ``client`` import Python's own library alone, and numpy where ``code_eval`` needs it.
"""

from __future__ import annotations

from optuna_demix.scoring.sandbox.client import SANDBOX_VERSION, CallError, LostError, Sandbox

__all__ = ["SANDBOX_VERSION", "CallError", "LostError", "Sandbox"]
