"""A hash of what is scored that another process, host or checkout finds again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from optuna_demix.scoring.source import reachable_source

_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)  # of the object or of one that it holds


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a nesting of plain values, mappings, dataclasses, functions."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> Any:
    """Replace what JSON cannot hold by something that holds no memory address.

    A function becomes its source code and that of its helpers, so that a changed function changes
    the hash; where there is no source (built-ins, callable objects) its qualified name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((canonical(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if callable(value):
        return _source(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if hasattr(value, "tolist"):  # an array, whose text leaves out the middle of a long one
        return canonical(value.tolist())
    text = str(value)
    return type(value).__qualname__ if _ADDRESS.search(text) else text


def _source(function: Any) -> Any:
    if hasattr(function, "func") and hasattr(function, "args"):  # functools.partial
        return canonical([function.func, function.args, function.keywords])
    try:
        source = reachable_source(function)
    except (TypeError, OSError):
        return getattr(function, "__qualname__", type(function).__qualname__)
    return source[0] if len(source) == 1 else source
