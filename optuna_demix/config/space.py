"""The mixture space that a ``study.yaml`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna_demix.errors import ConfigError, ConstraintError

if TYPE_CHECKING:
    from optuna_demix.config.study import StudyConfig
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
    except ConfigError as error:
        raise ConfigError(f"{config.source}: mixture: {error}") from None


def mixture_arguments(config: StudyConfig) -> Mapping[str, Any]:
    """Keyword arguments of ``MixtureSpace`` for a study: plain data, no mixture imported."""
    mixture = config.mixture
    return {
        "components": list(config.components),
        "datasets": config.dataset_names,
        "prior": mixture.prior,
        "lower": mixture.lower,
        "upper": mixture.upper,
        "min_weight": mixture.min_weight,
        "composition": {name: config.composition_of(name) for name in config.components},
        "tokens": {name: data.tokens for name, data in config.datasets.items() if data.tokens},
        "budget": mixture.budget,
        "max_epochs": mixture.max_epochs,
        "groups": [group.model_dump() for group in mixture.groups],
    }
