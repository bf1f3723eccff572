"""Databases, opened for workers that run for days."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from optuna_demix.storage.connection import connect
from optuna_demix.storage.database import engine_options
from tests.storage import crew


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
