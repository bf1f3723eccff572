"""Write a text file as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write aside, sync, and rename; a file that was there stays until then.

    Args:
        file: The file; its folder must exist.
        text: What to write.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
