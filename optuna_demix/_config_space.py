"""The mixture space of a ``study.yaml``: the one place where configuration meets the simplex."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_demix.config import mixture_arguments
from optuna_demix.errors import ConfigError, ConstraintError

if TYPE_CHECKING:
    from optuna_demix.config import StudyConfig
    from optuna_demix.mixture import MixtureSpace


def space_of(config: StudyConfig) -> MixtureSpace:
    """The mixture space of a study.

    Raises:
        ConfigError: If a name or number in it is wrong.
        ConstraintError: If no mixture satisfies the constraints.
    """
    from optuna_demix.mixture import MixtureSpace

    try:
        return MixtureSpace(**mixture_arguments(config))
    except ConstraintError as error:
        raise ConstraintError(f"{config.source}: mixture: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{config.source}: mixture: {error}") from None
