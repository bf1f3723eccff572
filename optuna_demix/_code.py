"""Which code a score comes from: what workers of one study must have in common."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

_OWN = ("merging", "scoring", "objective.py")
_LIBRARIES = ("lm-eval", "torch", "transformers", "tokenizers")


def code_versions() -> dict[str, str]:
    """A digest of our own code that makes scores, and the versions of the libraries it calls."""
    versions = {"optuna-demix": _own_digest()}
    for library in _LIBRARIES:
        try:
            # Builds for different devices are one version: 2.9.0+cpu, 2.9.0+cu128.
            versions[library] = metadata.version(library).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return versions


def _own_digest() -> str:
    root = Path(__file__).parent
    files = [
        file
        for name in _OWN
        for file in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
