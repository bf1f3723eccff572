"""Files of JSON, and the digests and syncs of what training writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from optuna_demix._files import sync, write_whole


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None if it is missing or not whole."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_write_error(error: Exception) -> bool:
    """Whether an error of safetensors or torch means that a file could not be written."""
    text = str(error)
    if type(error).__name__ == "SafetensorError":
        return "I/O error" in text
    # What torch.save says of a full disk.
    return isinstance(error, RuntimeError) and (
        "inline_container" in text or "iostream error" in text
    )


def write_json(file: Path, value: Any) -> None:
    """Write an object whole or not at all."""
    write_whole(file, json.dumps(value, indent=1) + "\n")


def sync_all(directory: Path) -> None:
    """Bring a directory and all that lies inside to the disk."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
