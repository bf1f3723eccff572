"""Plain data with numpy arrays as JSON that a page can hold."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

_TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4"}


def to_json(data: Any) -> str:
    """JSON of ``{"data": …, "arrays": […]}``, safe inside a script element.

    Each array is a reference ``{"$array": i}``; equal ones are stored once, flat, in base64 of
    little-endian numbers. Numbers that are not finite become ``null``.
    """
    arrays = _Arrays()
    plain = {"data": arrays.replace(data), "arrays": arrays.stored}
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class _Arrays:
    """Arrays of a structure, each of them once."""

    def __init__(self) -> None:
        self.stored: list[dict[str, str]] = []
        self._places: dict[tuple[str, bytes], int] = {}

    def replace(self, value: Any) -> Any:
        """The value with references in place of arrays."""
        if isinstance(value, dict):
            return {key: self.replace(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.replace(item) for item in value]
        if isinstance(value, np.ndarray):
            return {"$array": self._place(value)}
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    def _place(self, array: np.ndarray[Any, Any]) -> int:
        kind = f"{array.dtype.kind}{array.dtype.itemsize}"
        content = np.ascontiguousarray(array, dtype=_TYPES[kind]).tobytes()
        if (kind, content) not in self._places:
            self._places[kind, content] = len(self.stored)
            self.stored.append({"type": kind, "data": base64.b64encode(content).decode()})
        return self._places[kind, content]
