"""That the password of a storage is nowhere to be read."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optuna_demix.storage.secrets import Secrets, mask_url
from tests.storage import crew


@pytest.fixture(autouse=True)
def _unmasked() -> Iterator[None]:
    """Filters of one test are not another's."""
    yield
    for handler in logging.getLogger("optuna").handlers:
        handler.filters.clear()


@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        ("postgresql://me:geheim@host/mix", ["geheim"]),
        ("postgresql+psycopg://me:ge%40heim@host/mix", ["ge%40heim", "ge@heim"]),
        ("postgresql://host/mix?user=me&password=geheim", ["geheim"]),
        ("redis://me:geheim@host:6379/0", ["geheim"]),
        ("mysql://me:xy@host/mix", ["xy"]),
    ],
)
def test_passwords_are_masked_wherever_they_stand(url: str, passwords: list[str]) -> None:
    secrets = Secrets(url)
    for text in (url, *(f"authentication of me with {word} failed" for word in passwords)):
        shown = secrets.mask(text)
        assert "***" in shown and "me" in shown
        assert not any(word in shown for word in passwords)
    assert secrets.mask("nothing to hide") == "nothing to hide"
    assert Secrets("sqlite:///mix.db").mask("mix") == "mix"


def test_logs_are_masked(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import optuna; from optuna_demix.storage.secrets import Secrets;"
        "Secrets('postgresql://me:geheim@host/mix').guard_logs();"
        "log = optuna.logging.get_logger('optuna.study');"
        "log.warning('cannot reach %s', 'postgresql://me:geheim@host');\n"
        "try:\n    raise ValueError('invalid dsn: geheim')\n"
        "except ValueError:\n    log.warning('failed', exc_info=True)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    shown = capfd.readouterr().err
    assert "geheim" not in shown
    assert shown.count("***") >= 2 and "Traceback" in shown


def test_no_password_in_the_process_list(tmp_path: Path) -> None:
    """A running command: what ``ps`` shows of it, and what its children got."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs /proc")
    pytest.importorskip("grpc")
    database = tmp_path / "mix.db"
    crew.new_study(f"sqlite:///{database}")
    url = f"sqlite:///{database}?password=geheim"
    process = subprocess.Popen(
        [sys.executable, "-m", "optuna_demix", "serve", "--storage", url, "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = ""
        for line in iter(process.stderr.readline, ""):
            said += line
            if "grpc://localhost:" in line:
                break
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        assert "geheim" not in shown and "serve" in shown
        assert "geheim" not in said and "grpc://localhost:" in said
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
        assert url in environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=x", "postgresql://host/db?user=me&password=***"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_urls_are_shown_without_their_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown
