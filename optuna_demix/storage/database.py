"""Databases, opened for workers that run for days."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix.errors import StudyError
from optuna_demix.storage.secrets import mask_url
from optuna_demix.storage.timing import CONNECT_S

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

    from optuna_demix.storage.secrets import Secrets
    from optuna_demix.storage.timing import Timing

_SQLITE_WAIT_S = 60
"""Seconds for which a worker waits while others write."""

_RECYCLE_S = 1800
"""Age in seconds of a connection that is replaced: below the idle limits of servers and of most
firewalls."""


def open_database(storage: str, timing: Timing, secrets: Secrets, connections: int) -> BaseStorage:
    """Open a database that exists.

    Args:
        storage: Its URL.
        timing: Of heartbeats.
        secrets: Its password.
        connections: Connections that are kept open.

    Raises:
        StudyError: If it does not exist, cannot be reached or is not Optuna's.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    from optuna_demix.storage.requeue import requeue

    shown = mask_url(storage)
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise StudyError(
            f"storage {shown!r} is not a database URL; write sqlite:///study.db, "
            "postgresql://user:password@host/database, grpc://host:port, or the path of a "
            "journal that ends in .log"
        ) from None
    if url.drivername == "mysql":
        url = url.set(drivername="mysql+pymysql")  # the driver of our extra
    if url.get_backend_name() == "sqlite":
        _check_sqlite(url, shown)
    try:
        database = RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=engine_options(url, connections=connections),
            heartbeat_interval=timing.heartbeat_s,
            grace_period=timing.grace_s,
            heartbeat_stale_trial_callback=requeue,
        )
    except (NoSuchModuleError, ImportError) as error:
        raise StudyError(
            f"storage {shown!r}: the driver for {url.drivername!r} is not installed "
            f"({secrets.line(error)}); "
            "pip install 'optuna-demix[postgresql]' or 'optuna-demix[mysql]'"
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise StudyError(
            f"storage {shown!r} cannot be used: {secrets.line(error)}; "
            "check that the server runs and that the URL is right"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        _lock_at_begin(database)
    return get_storage(database)  # with Optuna's cache of finished trials


def engine_options(url: URL, *, connections: int = 1) -> dict[str, Any]:
    """Options of SQLAlchemy's engine for connections that idle through long evaluations.

    A connection is tested before it is used and replaced after half an hour. One is kept for
    each worker, so that 64 workers stay below the 100 connections PostgreSQL admits by default.
    Keepalives notice a dead peer within two minutes, where the system would wait for hours.

    Args:
        url: The database.
        connections: How many are kept.
    """
    backend, driver = url.get_backend_name(), url.get_driver_name()
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": _RECYCLE_S}
    if backend == "sqlite":
        return {**options, "connect_args": {"timeout": _SQLITE_WAIT_S}}
    options |= {"pool_size": connections, "max_overflow": 4}
    arguments: dict[str, Any] = {}
    if backend == "postgresql" and driver in ("psycopg", "psycopg2"):
        arguments = {
            "connect_timeout": CONNECT_S,
            "keepalives": 1,
            "keepalives_idle": 60,
            "keepalives_interval": 10,
            "keepalives_count": 6,
            "tcp_user_timeout": 120_000,  # ms
        }
    elif driver in ("pymysql", "mysqldb"):
        arguments = {"connect_timeout": CONNECT_S, "read_timeout": 120, "write_timeout": 120}
    # What the URL says goes first.
    return {**options, "connect_args": _without(arguments, url.query)}


def _without(arguments: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in given}


def _check_sqlite(url: URL, shown: str) -> None:
    if url.database and url.database != ":memory:" and not Path(url.database).exists():
        raise StudyError(
            f"storage {shown!r}: there is no file {url.database}; "
            "make it with 'optuna create-study --storage …' or correct the path"
        )


def _lock_at_begin(storage: Any) -> None:
    """Make SQLite lock at the beginning of a transaction, not at its first write.

    It knows no SELECT … FOR UPDATE: two workers could read the same waiting trial and both take
    it.
    """
    from sqlalchemy import event

    storage.engine.dispose()

    @event.listens_for(storage.engine, "connect")
    def leave_transactions_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
