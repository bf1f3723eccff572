"""Scripts that plans hold: they import nothing of this package, and run where it is not."""

from __future__ import annotations

from importlib.resources import files


def script(name: str) -> str:
    """The text of a script."""
    return (files(__name__) / name).read_text(encoding="utf-8")
