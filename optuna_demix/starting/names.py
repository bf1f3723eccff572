"""Names of datasets and components from names of folders and files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from optuna_demix.config._names import check_folders, check_name

_LONGEST = 180  # bytes: leaves room for what tells two names apart


def usable_names(found: Iterable[str]) -> dict[str, str]:
    """Give each folder or file a name that a study may use: its own, where that can be one.

    Args:
        found: Their names; no two are the same.

    Returns:
        The name in the study by the name that was found, in the same order.
    """
    names: dict[str, str] = {}
    for original in found:
        plain = original if _fits(original, ()) else _cleaned(original)
        name, number = plain, 1
        while not _fits(name, names.values()):
            number += 1
            name = f"{plain}-{number}"
        names[original] = name
    return names


def renamed(names: Mapping[str, str]) -> list[str]:
    """A note for each name of :func:`usable_names` that is not the one that was found."""
    return [
        f"{ascii(found)} is called {name} in the study"
        for found, name in names.items()
        if found != name
    ]


def _fits(name: str, others: Iterable[str]) -> bool:
    try:
        check_name(name, "name")
        check_folders([*others, name])
    except ValueError:
        return False
    return True


def _cleaned(name: str) -> str:
    """The name without what a name must not hold."""
    kept = "".join(
        "_" if character in "/\\" or unicodedata.category(character) in ("Cc", "Cs") else character
        for character in name
    )
    kept = kept.encode()[:_LONGEST].decode(errors="ignore")
    while kept != (shorter := kept.strip().lstrip(".")):
        kept = shorter
    return kept or "unnamed"
