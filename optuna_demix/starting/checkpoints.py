"""The checkpoints below a folder: which are components, and which is their base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix.errors import ComponentError, DemixError
from optuna_demix.starting.folders import listed
from optuna_demix.starting.names import renamed, usable_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_demix.merging import ComponentSet

BASE_NAMES = ("base", "base-model", "base_model")
"""Folders that hold the base where nobody says which one does."""

_CONFIGS = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class Checkpoints:
    """What a folder of checkpoints holds.

    Attributes:
        components: Directory of each component, by its name in the study.
        base: Directory of the base, if there is one.
        notes: Lines for the user: what was left out, renamed or guessed.
    """

    components: Mapping[str, Path]
    base: Path | None
    notes: list[str] = field(default_factory=list)


def find_checkpoints(folder: Path, base: Path | None = None) -> Checkpoints:
    """Find the checkpoint in each subfolder.

    Args:
        folder: The folder. A subfolder that holds only ``checkpoint-<n>``, as trainers leave
            them, stands for the last of these.
        base: The base, if it is known; otherwise it is the subfolder named ``base``.

    Raises:
        ComponentError: If there are not two components at least.
    """
    flag = f"--components {folder}"
    if _is_checkpoint(folder):
        raise ComponentError(
            f"{flag}: is itself a checkpoint; give the folder that holds one for each component"
        )
    places: dict[str, Path] = {}
    notes: list[str] = []
    for entry in listed(folder, "--components"):
        if not entry.is_dir():
            continue
        place = entry if _is_checkpoint(entry) else _last_of(entry)
        if place is None:
            notes.append(f"left out {entry}: it holds no checkpoint (no config.json)")
            continue
        if base is not None and base.resolve() in (entry.resolve(), place.resolve()):
            continue
        if base is None and entry.name.casefold() in BASE_NAMES:
            base = place
            notes.append(f"{entry} is taken as the base, by its name")
            continue
        if place != entry:
            notes.append(f"{entry} stands for its last checkpoint, {place.name}")
        places[entry.name] = place
    if len(places) < 2:
        raise ComponentError(
            f"{flag}: holds {len(places) or 'no'} component{'s' * (len(places) != 1)}, and a "
            "mixture needs two at least; give a folder with one checkpoint in each subfolder"
        )
    names = usable_names(places)
    notes += renamed(names)
    return Checkpoints({names[found]: place for found, place in places.items()}, base, notes)


def open_set(found: Checkpoints) -> tuple[ComponentSet, str | None]:
    """Check that components and base fit together, from their headers.

    Returns:
        The components, and the one whose configuration has to stand for all where they end texts
        differently.

    Raises:
        ComponentError: If one is damaged or unlike the others.
    """
    from optuna_demix.merging import ComponentSet

    first = next(iter(found.components))
    try:
        return ComponentSet.open(found.components, base=found.base), None
    except ComponentError as error:
        try:
            return ComponentSet.open(found.components, base=found.base, config_of=first), first
        except DemixError:
            raise error from None


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _CONFIGS)


def _last_of(folder: Path) -> Path | None:
    """The last of a trainer's checkpoints."""
    found = dict(_numbered(folder))
    return found[max(found)] if found else None


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    for place in folder.glob("checkpoint-*"):
        number = place.name.rpartition("-")[2]
        if number.isascii() and number.isdigit() and _is_checkpoint(place):
            yield int(number), place
