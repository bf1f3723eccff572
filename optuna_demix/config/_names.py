"""Names of datasets and components, which become folders: ``dolma3_cc/health_high``."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_LONGEST = 200  # bytes of one part; file systems take 255, and files beside it have longer names
_RESERVED = ("base", "references")


def check_name(name: str, field: str) -> None:
    """Refuse a name that could lead out of the folder it is joined to.

    Raises:
        ValueError: Naming the field, the name and the reason.
    """
    reason = _unsafe(name)
    if reason is not None:
        raise ValueError(f"{field}: {name!r} cannot be a name: {reason}; change it")


def check_folders(names: Iterable[str]) -> None:
    """Refuse components whose folders below ``<run_dir>/models`` would be the same or nested.

    Raises:
        ValueError: Naming the components.
    """
    folders: dict[tuple[str, ...], str] = {}
    for name in names:
        parts = _folder(name)
        if parts[0] in _RESERVED:
            raise ValueError(
                f"components: {name!r} cannot be a component's name: the folder {parts[0]!r} "
                "holds other models; change it"
            )
        if parts in folders:
            raise ValueError(
                f"components: {folders[parts]!r} and {name!r} are one folder where upper and "
                "lower case are the same; change one of them"
            )
        folders[parts] = name
    for parts, name in folders.items():
        for length in range(1, len(parts)):
            outer = folders.get(parts[:length])
            if outer is not None:
                raise ValueError(
                    f"components: the folder of {name!r} would lie in that of {outer!r}; change "
                    "one of the names"
                )


def _unsafe(name: str) -> str | None:
    """Why a name cannot be a path below a folder; ``None`` if it can."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "it holds a control character"
    if "\\" in name:
        return "it holds a backslash"
    parts = name.split("/")
    if "" in parts:
        return "it is empty" if not name else "a slash must stand between two parts"
    if any(part.startswith(".") for part in parts):
        return "a part begins with a dot"
    if any(part != part.strip() for part in parts):
        return "a part begins or ends with a space"
    if any(len(part.encode("utf-8")) > _LONGEST for part in parts):
        return f"a part has more than {_LONGEST} bytes"
    return None


def _folder(name: str) -> tuple[str, ...]:
    """The parts of a name as a file system sees them that ignores case and kinds of accents."""
    return tuple(unicodedata.normalize("NFC", name).casefold().split("/"))
