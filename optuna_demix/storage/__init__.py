"""Storages of studies: URLs and their secrets, retries, databases, journals, gRPC."""

from __future__ import annotations

from optuna_demix.storage.connection import STORAGE_ENV, connect, storage_url
from optuna_demix.storage.secrets import Secrets, mask_url
from optuna_demix.storage.timing import Timing

__all__ = [
    "STORAGE_ENV",
    "Secrets",
    "Timing",
    "connect",
    "mask_url",
    "storage_url",
]
