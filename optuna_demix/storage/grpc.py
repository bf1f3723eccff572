"""Optuna's gRPC storage, as client and as server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from optuna.storages import GrpcStorageProxy

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def connect_client(
    host: str, port: int, *, ready_within_s: float, call_s: float
) -> GrpcStorageProxy:
    """Connect to a server.

    Args:
        host: Its host.
        port: Its port.
        ready_within_s: Seconds in which it must answer.
        call_s: Seconds that one call may take. Without a limit a call over a connection that
            was cut would wait for ever.

    Raises:
        ConnectionError: If it does not answer.
    """
    client = _Client(host=host, port=port)
    client.wait_server_ready(timeout=ready_within_s)
    client.limit_calls(call_s)
    return client


class _Client(GrpcStorageProxy):
    """Optuna's client with a deadline for each call."""

    def limit_calls(self, seconds: float) -> None:
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.client import GrpcClientCache

        self._channel = grpc.intercept_channel(self._channel, _Deadline(seconds))
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._cache = GrpcClientCache(self._stub)


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        limited = details._replace(timeout=self._seconds)
        return continuation(limited, request)


@contextmanager
def serve_storage(storage: BaseStorage, host: str, port: int, *, n_threads: int) -> Iterator[int]:
    """A server in front of a storage, for as long as the block lasts; yields its port.

    Args:
        storage: The storage; Optuna's server does not support journals.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        n_threads: Calls served at the same time.

    Raises:
        OSError: If the address cannot be listened on.
    """
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    # Two servers at one port would share its calls, and a restart would not be noticed.
    server = grpc.server(
        ThreadPoolExecutor(max_workers=n_threads), options=[("grpc.so_reuseport", 0)]
    )
    api_pb2_grpc.add_StorageServiceServicer_to_server(  # type: ignore[no-untyped-call]
        OptunaStorageProxyService(storage), server
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}") from error
    server.start()
    try:
        yield bound
    finally:
        server.stop(grace=5.0).wait()
