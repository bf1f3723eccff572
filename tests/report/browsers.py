"""A running ``optuna-dashboard`` and a headless Chromium to look at it with."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Without them Chromium looks for hosts of its own at every start.
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """Serve a storage; yields the address of a server that takes requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:  # a pipe nobody reads would fill up
        process = subprocess.Popen(
            [sys.executable, "-c", "from optuna_dashboard._cli import main; main()",
             url, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            # It says "Listening" before it listens: only an answer tells.
            while not _answers(address):
                if process.poll() is not None:
                    log.seek(0)
                    pytest.fail(f"the dashboard did not start:\n{log.read()}")
            yield address
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    try:
        fetch(address)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            time.sleep(0.05)
            return False
        raise
    return True


@contextmanager
def page() -> Iterator[Any]:
    """A page of a headless Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=_QUIET)
        try:
            yield chromium.new_page(viewport={"width": 1500, "height": 1000})
        finally:
            chromium.close()


def fetch(address: str) -> bytes:
    """What an address of the server answers."""
    with urllib.request.urlopen(address) as answer:
        content: bytes = answer.read()
    return content
