"""Errors of libraries and names that are not known, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 200 characters."""
    return shortened(" ".join(str(error).split()) or type(error).__name__)


def last_line(error: BaseException) -> str:
    """The cause of an error: validation puts it into the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[-1] if lines else type(error).__name__)


def shortened(text: str, length: int = 200) -> str:
    """The beginning of a text that is longer."""
    return text if len(text) <= length else text[: length - 3] + "..."


def unknown_name(name: str, known: Sequence[str], kind: str, listed: int = 20) -> str:
    """Say that a name is unknown, and which one may have been meant."""
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"no {kind} {name!r}; did you mean {close[0]!r}?"
    return f"no {kind} {name!r}" + (f"; known: {', '.join(known[:listed])}" if listed else "")
