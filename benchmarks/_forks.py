"""Processes forked from a server that has imported their module: quick to start, and small."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from typing import Any


def fork_context(module: str) -> Any:
    """Context of processes whose server imports a module first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def start_server() -> None:
    """Start the server, if there is none yet, with the import path of this process.

    Some versions of Python do not hand it over, and pass in silence over a module that the server
    does not find: then each process imports everything for itself.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
