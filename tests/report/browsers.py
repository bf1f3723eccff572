"""A running ``optuna-dashboard`` and a headless Chromium to look at it with."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard
import pytest

# Without them Chromium looks for hosts of its own at every start.
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser may keep a connection that it says nothing on


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def dashboard(storage: optuna.storages.BaseStorage) -> Iterator[str]:
    """Serve a storage as ``optuna-dashboard`` does; yields the server's address."""
    with make_server(
        "127.0.0.1", 0, optuna_dashboard.wsgi(storage), server_class=_Server, handler_class=_Silent
    ) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=_QUIET)
        try:
            yield chromium
        finally:
            chromium.close()


def fetch(address: str) -> bytes:
    """What an address of the server answers."""
    with urllib.request.urlopen(address) as answer:
        content: bytes = answer.read()
    return content
