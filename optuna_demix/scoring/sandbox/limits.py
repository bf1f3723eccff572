"""What code in the sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one program, or of one call of a metric.

    Attributes:
        seconds: Of wall time, and of processor time of each process.
        memory: Bytes of address space of each process, beyond what it starts with.
        file: Bytes of one file.
        folder: Bytes of all files together.
        processes: Processes and threads.
        open_files: Open files of each process.
    """

    seconds: float
    memory: int = 1024 * MIB
    file: int = 32 * MIB
    folder: int = 64 * MIB
    processes: int = 64
    open_files: int = 256
