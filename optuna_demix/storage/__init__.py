"""Storages of studies for workers that run for days.

``connect`` opens a storage from its URL: a database, a journal or Optuna's gRPC server, with
retries and without showing passwords. ``Claim`` chooses one of many processes to write something.
"""

from __future__ import annotations

from optuna_demix.storage.claim import Claim
from optuna_demix.storage.connection import STORAGE_ENV, connect, storage_url
from optuna_demix.storage.secrets import Secrets, mask_url
from optuna_demix.storage.server import serve
from optuna_demix.storage.timing import Timing

__all__ = [
    "STORAGE_ENV",
    "Claim",
    "Secrets",
    "Timing",
    "connect",
    "mask_url",
    "serve",
    "storage_url",
]
