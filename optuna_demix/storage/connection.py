"""Storage URLs: which storage they mean, and how to connect to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.errors import StudyError
from optuna_demix.storage.database import open_database
from optuna_demix.storage.secrets import Secrets, mask_url
from optuna_demix.storage.timing import CALL_S, CONNECT_S, Timing

if TYPE_CHECKING:
    import threading

    from optuna.storages import BaseStorage

    from optuna_demix.storage.retrying import RetryingStorage

STORAGE_ENV = "OPTUNA_STORAGE"
"""Environment variable with the storage URL, as for Optuna's own commands."""

_JOURNAL_SUFFIXES = (".log", ".journal")


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


def connect(
    storage: str,
    *,
    timing: Timing | None = None,
    give_up: threading.Event | None = None,
    connections: int = 1,
) -> RetryingStorage:
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
    connection is lost, for up to ``timing.patience_s``, see
    :class:`~optuna_demix.storage.retrying.RetryingStorage`; connecting itself is tried once.

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

    from optuna_demix.storage.retrying import RetryingStorage

    timing = timing or Timing()
    secrets = Secrets(storage)
    secrets.guard_logs()
    with warnings.catch_warnings():
        # Heartbeats and gRPC are experimental in Optuna; our tests watch over them.
        warnings.simplefilter("ignore", ExperimentalWarning)
        inner = _open(storage, timing, secrets, connections)
    return RetryingStorage(inner, timing=timing, secrets=secrets, give_up=give_up)


def _open(storage: str, timing: Timing, secrets: Secrets, connections: int) -> BaseStorage:
    if storage.startswith("grpc://"):
        return _grpc(storage)
    if storage.startswith(("redis://", "rediss://")):
        return _redis(storage, secrets)
    if "://" not in storage and (storage.endswith(_JOURNAL_SUFFIXES) or Path(storage).is_file()):
        from optuna_demix.storage.journal import open_journal

        return open_journal(Path(storage))
    return open_database(storage, timing, secrets, connections)


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
        from optuna_demix.storage.grpc import connect_client
    except ImportError as error:
        raise StudyError(
            f"storage {storage!r} needs {error.name or 'grpc'}; pip install 'optuna-demix[grpc]'"
        ) from None
    try:
        return connect_client(host, port, ready_within_s=CONNECT_S, call_s=CALL_S)
    except ConnectionError:
        raise StudyError(
            f"storage {storage!r}: no server answers there; start one with "
            "'optuna-demix serve' beside the database"
        ) from None


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
