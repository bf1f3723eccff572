"""Storage URLs: which storage they mean, how to connect for days, how not to tell a password."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna_demix.errors import StudyError

if TYPE_CHECKING:
    import threading

    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

STORAGE_ENV = "OPTUNA_STORAGE"
"""Environment variable with the storage URL, as for Optuna's own commands."""

_JOURNAL_SUFFIXES = (".log", ".journal")
_SQLITE_HEADER = b"SQLite format 3\0"
_SQLITE_WAIT_S = 60  # how long a worker waits while others write
_CONNECT_S = 10
_RECYCLE_S = 1800  # below the idle limits of servers and of most firewalls
_CALL_S = 300.0  # of one call through a proxy: a first read of a large study takes a minute


@dataclass(frozen=True)
class Timing:
    """How long things may take.

    Attributes:
        heartbeat_s: Seconds between signs of life of a running trial, a whole number.
        grace_s: Seconds without one after which a trial is taken from its worker. Loading a
            large model can hold the interpreter for minutes.
        patience_s: Seconds for which a call waits for a storage that does not answer.
    """

    heartbeat_s: int = 60
    grace_s: int = 600
    patience_s: float = 3600.0


def storage_url(given: str | None) -> str:
    """The storage URL of the command line or of ``OPTUNA_STORAGE``; ``@FILE`` reads a file.

    Raises:
        StudyError: If neither is given, or the file cannot be read.
    """
    url = given or os.environ.get(STORAGE_ENV)
    if not url:
        raise StudyError(
            "no storage given; use --storage URL or set OPTUNA_STORAGE, as for optuna itself"
        )
    if not url.startswith("@"):
        return url
    file = Path(url[1:])
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise StudyError(
            f"--storage {url}: the file cannot be read ({reason}); write the URL into it"
        ) from None
    if len(lines) != 1:
        raise StudyError(f"--storage {url}: the file must hold one line, the storage URL")
    return lines[0]


def mask_url(text: str) -> str:
    """A storage URL, or a text with one in it, with the password replaced by ``***``."""
    masked = re.sub(r"(://[^:/@\s]*:)\S*(@)", r"\1***\2", text)
    return re.sub(r"(?i)\b((?:password|passwd|pwd)=)[^&\s]*", r"\1***", masked)


class Secrets:
    """The password of a storage, and how to keep it out of what is printed and stored.

    Args:
        url: The storage URL.
    """

    def __init__(self, url: str) -> None:
        from urllib.parse import unquote

        found = re.search(r"://[^:/@\s]*:(\S*)@", url)
        words = {found.group(1)} if found else set()
        words |= set(re.findall(r"(?i)[?&](?:password|passwd|pwd)=([^&\s]*)", url))
        words |= {unquote(word) for word in words}
        self._words = sorted((word for word in words if word), key=len, reverse=True)

    def mask(self, text: str) -> str:
        """A text without the password, whether it stands in a URL or alone."""
        for word in self._words:
            # A short one is masked where it stands by itself, not within other words.
            pattern = re.escape(word) if len(word) > 3 else rf"(?<!\w){re.escape(word)}(?!\w)"
            text = re.sub(pattern, "***", text)
        return mask_url(text)

    def line(self, error: BaseException) -> str:
        """The first line of an error, or of what caused it, without the password."""
        text = str(error.__cause__ or error).strip().split("\n")[0]
        return self.mask(text or type(error).__name__).rstrip(". ")

    def guard_logs(self) -> None:
        """Mask the password in all that Optuna logs from now on."""
        import optuna

        optuna.logging.get_logger("optuna")  # makes its handler
        for handler in logging.getLogger("optuna").handlers:
            handler.addFilter(_Masking(self))


class _Masking(logging.Filter):
    """Rewrites what is logged; it never drops a line."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._secrets.mask(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secrets.mask(record.exc_text)
        return True


def connect(
    storage: str,
    *,
    timing: Timing | None = None,
    give_up: threading.Event | None = None,
    connections: int = 1,
) -> BaseStorage:
    """Connect to a storage of studies, for days.

    ========================================  ==================================================
    ``postgresql://``, ``mysql://``,           :class:`optuna.storages.RDBStorage` with Optuna's
    ``sqlite:///FILE``                         heartbeats
    ``grpc://HOST:PORT``                       :class:`optuna.storages.GrpcStorageProxy`
    ``redis://``                               :class:`optuna.storages.JournalStorage` on Redis
    a file, or a path ending in ``.log``       :class:`optuna.storages.JournalStorage` on a file
    or ``.journal``
    ========================================  ==================================================

    Redis and files are told apart as Optuna's own command does. Calls are repeated while the
    connection is lost, for up to ``timing.patience_s``; connecting itself is tried once.

    Args:
        storage: The URL or path.
        timing: How long things may take.
        give_up: When set, nobody waits for a lost connection any more.
        connections: Connections to a database that are kept open; a few more are made when
            several threads call at once.

    Raises:
        StudyError: If the storage does not exist, cannot be reached or is not Optuna's.
    """
    import warnings

    from optuna.exceptions import ExperimentalWarning

    from optuna_demix._steady import SteadyStorage

    timing = timing or Timing()
    secrets = Secrets(storage)
    secrets.guard_logs()
    with warnings.catch_warnings():
        # Heartbeats and the proxy are experimental in Optuna; our tests watch over them.
        warnings.simplefilter("ignore", ExperimentalWarning)
        inner = _open(storage, timing, secrets, connections)
    return SteadyStorage(
        inner,
        patience_s=timing.patience_s,
        grace_s=timing.grace_s,
        give_up=give_up,
        describe=secrets.line,
    )


def _open(storage: str, timing: Timing, secrets: Secrets, connections: int) -> BaseStorage:
    if storage.startswith("grpc://"):
        return _grpc(storage)
    if storage.startswith(("redis://", "rediss://")):
        return _redis(storage, secrets)
    if "://" not in storage and (storage.endswith(_JOURNAL_SUFFIXES) or Path(storage).is_file()):
        return _journal(storage)
    return _database(storage, timing, secrets, connections)


def _database(storage: str, timing: Timing, secrets: Secrets, connections: int) -> BaseStorage:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    from optuna_demix._lease import requeue

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
            "connect_timeout": _CONNECT_S,
            "keepalives": 1,
            "keepalives_idle": 60,
            "keepalives_interval": 10,
            "keepalives_count": 6,
            "tcp_user_timeout": 120_000,  # ms
        }
    elif driver in ("pymysql", "mysqldb"):
        arguments = {"connect_timeout": _CONNECT_S, "read_timeout": 120, "write_timeout": 120}
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


def _grpc(storage: str) -> BaseStorage:
    from urllib.parse import urlsplit

    parts = urlsplit(storage)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path not in ("", "/"):
        raise StudyError(f"storage {mask_url(storage)!r}: write grpc://host:port")
    try:
        from optuna_demix._grpc import connect_proxy
    except ImportError as error:
        raise StudyError(
            f"storage {storage!r} needs {error.name or 'grpc'}; pip install 'optuna-demix[grpc]'"
        ) from None
    try:
        return connect_proxy(host, port, ready_within_s=_CONNECT_S, call_s=_CALL_S)
    except ConnectionError:
        raise StudyError(
            f"storage {storage!r}: no proxy answers there; start one with "
            "'optuna-demix proxy' beside the database"
        ) from None


@contextmanager
def serve(
    storage: str, *, host: str, port: int, n_threads: int, timing: Timing | None = None
) -> Iterator[int]:
    """Serve a database to workers through Optuna's gRPC proxy; yields the port.

    Args:
        storage: URL of the database.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        n_threads: Calls served at the same time.
        timing: How long the proxy waits for the database.

    Raises:
        StudyError: If the database cannot be used, or the address cannot be listened on.
    """
    if "://" not in storage or storage.startswith(("grpc://", "redis://", "rediss://")):
        raise StudyError(
            f"storage {mask_url(storage)!r} cannot be served: Optuna's proxy needs a database"
        )
    try:
        from optuna_demix._grpc import serve_proxy
    except ImportError as error:
        raise StudyError(
            f"the proxy needs {error.name or 'grpc'}; pip install 'optuna-demix[grpc]'"
        ) from None
    # Workers wait longer than the proxy does, and say so.
    timing = timing or Timing(patience_s=_CALL_S / 5)
    database = connect(storage, timing=timing, connections=n_threads)
    try:
        with serve_proxy(database, host, port, n_threads=n_threads) as bound:
            yield bound
    except OSError as error:
        raise StudyError(f"{error}; choose another --host or --port") from None


def _redis(storage: str, secrets: Secrets) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalRedisBackend

    try:
        import redis
    except ImportError:
        raise StudyError(f"storage {mask_url(storage)!r} needs redis; pip install redis") from None
    try:
        return JournalStorage(JournalRedisBackend(storage))
    except (redis.RedisError, ValueError) as error:
        raise StudyError(
            f"storage {mask_url(storage)!r} cannot be used: {secrets.line(error)}; "
            "check that the server runs and that the URL is right"
        ) from None


def _journal(storage: str) -> BaseStorage:
    from optuna_demix._journal import open_journal

    path = Path(storage)
    if not path.is_file():
        raise StudyError(
            f"storage {storage!r}: there is no such journal; make it with "
            f"'optuna create-study --storage {storage} --storage-class JournalFileBackend …' or "
            "correct the path"
        )
    try:
        with path.open("rb") as stream:
            is_sqlite = stream.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
        if is_sqlite:
            raise StudyError(
                f"storage {storage!r} is an SQLite database; write sqlite:///{storage}"
            )
        return open_journal(path)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, StudyError):
            raise
        reason = getattr(error, "strerror", None) or "it is not a journal of Optuna"
        raise StudyError(
            f"storage {storage!r} cannot be used: {reason}; correct the path"
        ) from None
