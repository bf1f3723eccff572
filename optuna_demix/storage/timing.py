"""How long calls, heartbeats and outages of a storage may take."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT_S = 10
"""Seconds in which a server must answer a new connection."""

CALL_S = 300.0
"""Seconds of one call through gRPC: a first read of a large study takes a minute."""


@dataclass(frozen=True)
class Timing:
    """How long things may take.

    Attributes:
        heartbeat_s: Seconds between heartbeats of a running trial, a whole number.
        grace_s: Seconds without a heartbeat after which a trial is reclaimed from its worker.
            Loading a large model can hold the interpreter for minutes.
        patience_s: Seconds for which a call waits for a storage that does not answer.
    """

    heartbeat_s: int = 60
    grace_s: int = 600
    patience_s: float = 3600.0
