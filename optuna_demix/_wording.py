"""Errors of other libraries, long values and unknown names, worded in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200  # characters of another library's message that are shown


def one_line(error: BaseException) -> str:
    """An error's message in one line of bounded length."""
    return shortened(" ".join(str(error).split()) or type(error).__name__)


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where validating libraries put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[-1] if lines else type(error).__name__)


def shortened(text: str, length: int = _LONGEST) -> str:
    """The beginning of a text that is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def shown(value: object) -> str:
    """A value that was given in place of another, with its type."""
    return f"{type(value).__name__} {shortened(repr(value), 60)}"


def counted(n: int, noun: str) -> str:
    """A number with its noun, in the plural where it needs one."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def duration(seconds: float) -> str:
    """A time in words: ``35 s``, ``2 min 5 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def byte_size(number: float) -> str:
    """Bytes in words: ``16.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.2f} TB"


def did_you_mean(name: object, known: Iterable[str], *, most: int = 1) -> str:
    """The known names that are close to an unknown one, as a question; empty if none is.

    Args:
        name: What was given.
        known: The names there are.
        most: How many close names to offer.
    """
    close = difflib.get_close_matches(str(name), list(known), n=most)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def unknown_name(name: object, known: Iterable[str], kind: str, listed: int = 20) -> str:
    """Say that a name is unknown, and which one may have been meant.

    Args:
        name: What was given.
        known: The names there are.
        kind: What they are names of.
        listed: How many of them to list where none is close.
    """
    names = list(known)
    hint = did_you_mean(name, names)
    if not hint and listed:
        hint = f"known: {', '.join(names[:listed])}" if names else "there are none"
    return f"no {kind} {name!r}" + (f"; {hint}" if hint else "")
