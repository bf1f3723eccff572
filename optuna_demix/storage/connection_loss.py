"""Which errors of a storage may pass, so that its call is worth repeating."""

from __future__ import annotations

from collections.abc import Iterator

# By name, so that a driver that is not installed need not be.
_PASSING = {
    "sqlalchemy.OperationalError",
    "sqlalchemy.InterfaceError",
    "sqlalchemy.TimeoutError",
    "sqlalchemy.PendingRollbackError",
    "redis.ConnectionError",
    "redis.TimeoutError",
}
_PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")

_SERVER_WORDS = ("during the commit", "the storage has not answered")
"""What a gRPC server passes on when its own database is away: Optuna's words, and ours."""


def is_connection_loss(error: BaseException) -> bool:
    """Whether a storage's error may pass: a lost connection, a restart, a lock, a full disk."""
    return any(_is_passing(each) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _is_passing(error: BaseException) -> bool:
    names = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}
    if names & _PASSING:
        return True
    if getattr(error, "connection_invalidated", False):
        return True  # SQLAlchemy has seen that the connection is gone
    if "grpc.RpcError" in names:
        code = getattr(getattr(error, "code", lambda: None)(), "name", "")
        details = str(getattr(error, "details", lambda: "")())
        # UNKNOWN is the server's own database in trouble, or a defect.
        return code in _PASSING_CODES or (
            code == "UNKNOWN" and any(words in details for words in _SERVER_WORDS)
        )
    return isinstance(error, OSError)  # a journal file: full disk, stale network mount
