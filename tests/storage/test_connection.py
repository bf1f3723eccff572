"""Which storage a URL means, and that its password is nowhere to be read."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import make_url

from optuna_demix.errors import StudyError
from optuna_demix.storage.connection import connect, storage_url
from optuna_demix.storage.database import engine_options
from optuna_demix.storage.journal import open_journal
from optuna_demix.storage.secrets import Secrets
from tests.storage import crew

PASSWORD = "ge:h@ei/m"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("nowhere.log", ["no such journal", "JournalFileBackend"]),
        ("nowhere.journal", ["no such journal"]),
        ("grpc://host", ["grpc://host:port"]),
        ("grpc://host:many", ["grpc://host:port"]),
        ("grpc://host:1/path", ["grpc://host:port"]),
        ("redis://:geheim@127.0.0.1:1", ["redis", "***"]),
        ("nowhere", ["not a database URL", "grpc://", ".log"]),
        ("mysql://me:geheim@127.0.0.1:9/mix", ["me:***@127.0.0.1"]),
    ],
)
def test_a_wrong_storage_is_one_line(
    url: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused:
        connect(url)
    line = str(refused.value)
    assert all(word in line for word in named), line
    assert "geheim" not in line and "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_known_by_its_file_as_by_optuna(tmp_path: Path) -> None:
    for name in ("mix.log", "mix"):
        path = str(tmp_path / name)
        crew.new_study(path, journal=True)
        assert crew.load(connect(path)).study_name == "mix"
    database = tmp_path / "mix.db"
    crew.new_study(f"sqlite:///{database}")
    with pytest.raises(StudyError, match="write sqlite:///"):
        connect(str(database))
    (tmp_path / "text.log").write_text("not\na journal\n")
    with pytest.raises(StudyError, match="not a journal"):
        connect(str(tmp_path / "text.log"))


def test_a_torn_journal_mends_itself(tmp_path: Path) -> None:
    path = tmp_path / "mix.log"
    crew.new_study(str(path), journal=True)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "worker_id"')
    study = optuna.load_study(study_name="mix", storage=open_journal(path))
    study.ask()
    assert path.read_bytes().startswith(whole)
    # Everybody can read on, those without our lock as well.
    plain = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    assert len(optuna.load_study(study_name="mix", storage=plain).trials) == 1


def test_a_url_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"postgresql://me:{PASSWORD}@host/mix\n")
    assert storage_url(f"@{file}") == f"postgresql://me:{PASSWORD}@host/mix"
    with pytest.raises(StudyError, match="cannot be read"):
        storage_url(f"@{tmp_path / 'none'}")
    file.write_text("\n")
    with pytest.raises(StudyError, match="one line"):
        storage_url(f"@{file}")


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
        "import optuna; from optuna_demix.storage.connection import Secrets;"
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
        first = process.stderr.readline()
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        assert "geheim" not in shown and "serve" in shown
        assert "geheim" not in first
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
        assert url in environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me@host/mix", {"keepalives_idle", "tcp_user_timeout", "connect_timeout"}),
        ("mysql+pymysql://me@host/mix", {"connect_timeout", "read_timeout", "write_timeout"}),
        ("sqlite:///mix.db", {"timeout"}),
    ],
)
def test_connections_are_made_for_long_evaluations(url: str, expected: set[str]) -> None:
    options = engine_options(make_url(url))
    assert options["pool_pre_ping"] and options["pool_recycle"] < 3600
    assert expected <= set(options["connect_args"])


def test_the_url_overrules_our_connection_settings() -> None:
    options = engine_options(make_url("postgresql://host/mix?connect_timeout=3"))
    assert "connect_timeout" not in options["connect_args"]


def test_sqlite_gives_a_waiting_trial_to_one_worker_only(tmp_path: Path) -> None:
    """Both read it as waiting before either takes it, unless a transaction locks first."""
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    crew.new_study(url)
    study = crew.load(connect(url))
    engine = study._storage.inner._backend.engine
    with engine.begin() as connection:
        other = engine.connect()
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        raw = other.connection.driver_connection
        raw.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(Exception, match="locked"):
            raw.execute("BEGIN IMMEDIATE")
        other.close()


def test_without_a_storage_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    with pytest.raises(StudyError, match="OPTUNA_STORAGE"):
        storage_url(None)
    monkeypatch.setitem(os.environ, "OPTUNA_STORAGE", "sqlite:///mix.db")
    assert storage_url(None) == "sqlite:///mix.db"


@pytest.fixture(autouse=True)
def _unmasked() -> object:
    """Filters of one test are not another's."""
    yield
    for handler in logging.getLogger("optuna").handlers:
        handler.filters.clear()
