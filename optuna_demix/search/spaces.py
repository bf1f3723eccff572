"""One mixture or several, as they are given."""

from __future__ import annotations

from collections.abc import Sequence

from optuna_demix._wording import shown
from optuna_demix.errors import ConfigError
from optuna_demix.mixture import MixtureSpace


def as_spaces(space: MixtureSpace | Sequence[MixtureSpace]) -> tuple[MixtureSpace, ...]:
    """One mixture, or several, as a tuple.

    Raises:
        ConfigError: If it is something else, or two mixtures have a parameter in common.
    """
    if isinstance(space, MixtureSpace):
        return (space,)
    spaces = tuple(space) if isinstance(space, Sequence) and not isinstance(space, str) else ()
    if not spaces or not all(isinstance(each, MixtureSpace) for each in spaces):
        raise ConfigError(
            f"space must be a MixtureSpace or a sequence of them, got {shown(space)}"
        )
    names = [name for each in spaces for name in each.param_names]
    if len(set(names)) < len(names):
        raise ConfigError(
            "two mixtures have a component in common; give each a MixtureSpace(name=…)"
        )
    return spaces
