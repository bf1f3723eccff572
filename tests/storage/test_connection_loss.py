"""Which errors of a storage may pass."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

from optuna_demix.storage.connection_loss import is_connection_loss


def caused_by(cause: Exception) -> Exception:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def rpc_error(code: str, details: str = "") -> Exception:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

    class Failed(grpc.RpcError):
        def code(self) -> object:
            return grpc.StatusCode[code]

        def details(self) -> str:
            return details

    error: Exception = Failed()
    return error


GONE = sqlalchemy.exc.OperationalError("UPDATE trials", {}, sqlite3.OperationalError("gone"))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (GONE, True),
        (caused_by(GONE), True),
        (OSError(28, "No space left on device"), True),
        (sqlalchemy.exc.DataError("INSERT", {}, Exception("too long")), False),
        (ValueError("no number"), False),
        (UpdateFinishedTrialError("finished"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert is_connection_loss(error) == passes


@pytest.mark.parametrize(
    ("code", "details", "passes"),
    [
        ("UNAVAILABLE", "", True),
        ("DEADLINE_EXCEEDED", "", True),
        ("UNKNOWN", "An exception is raised during the commit.", True),
        ("UNKNOWN", "the storage has not answered for 60 s", True),
        ("UNKNOWN", "KeyError: 7", False),
        ("NOT_FOUND", "", False),
    ],
)
def test_what_may_pass_on_a_server(code: str, details: str, passes: bool) -> None:
    assert is_connection_loss(rpc_error(code, details)) == passes
