"""The traces of a figure."""

from __future__ import annotations

from typing import Any


def traces_of(figure: Any, name: str) -> list[Any]:
    """The traces of a name."""
    return [trace for trace in figure.data if trace.name == name]
