"""A database served to many workers through Optuna's gRPC server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna_demix.errors import StudyError
from optuna_demix.storage.connection import connect
from optuna_demix.storage.secrets import mask_url
from optuna_demix.storage.timing import CALL_S, Timing


@contextmanager
def serve(
    storage: str, *, host: str, port: int, n_threads: int, timing: Timing | None = None
) -> Iterator[int]:
    """Serve a database to workers for as long as the block lasts; yields the port.

    Args:
        storage: URL of the database.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        n_threads: Calls served at the same time.
        timing: How long the server waits for the database.

    Raises:
        StudyError: If the database cannot be used, or the address cannot be listened on.
    """
    if "://" not in storage or storage.startswith(("grpc://", "redis://", "rediss://")):
        raise StudyError(
            f"storage {mask_url(storage)!r} cannot be served: Optuna's server needs a database"
        )
    try:
        from optuna_demix.storage.grpc import serve_storage
    except ImportError as error:
        raise StudyError(
            f"the server needs {error.name or 'grpc'}; pip install 'optuna-demix[grpc]'"
        ) from None
    # Workers wait longer than the server does, and say so.
    timing = timing or Timing(patience_s=CALL_S / 5)
    database = connect(storage, timing=timing, connections=n_threads)
    try:
        with serve_storage(database, host, port, n_threads=n_threads) as bound:
            yield bound
    except OSError as error:
        raise StudyError(f"{error}; choose another --host or --port") from None
