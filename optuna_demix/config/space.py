"""The mixture space that a ``study.yaml`` describes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna_demix.errors import ConfigError, ConstraintError

if TYPE_CHECKING:
    from optuna_demix.config.mixture import LimitsConfig, PhaseConfig
    from optuna_demix.config.study import StudyConfig
    from optuna_demix.mixture import MixtureSpace


def space_of(config: StudyConfig) -> MixtureSpace:
    """The mixture space of a study.

    Raises:
        ConfigError: If a name or number in it is wrong.
        ConstraintError: If no mixture satisfies the constraints.
    """
    from optuna_demix.mixture import MixtureSpace, Phase

    if not config.phases:
        with _told(f"{config.source}: mixture: "):
            arguments = mixture_arguments(config)
            return _made(config.mixture, arguments)
    phases = []
    for phase in config.phases:
        with _told(f"{config.source}: phases: phase {phase.name!r}: "):
            phases.append(Phase(phase.name, phase.share, _phase(config, phase), phase.fixed))
    with _told(f"{config.source}: phases: "):
        return MixtureSpace.phases(
            phases,
            tokens=_tokens(config),
            budget=config.mixture.budget,
            max_epochs=config.mixture.max_epochs,
            groups=_plain(config.mixture.groups),
            constraints=_plain(config.mixture.constraints),
        )


def mixture_arguments(config: StudyConfig) -> Mapping[str, Any]:
    """Keyword arguments of ``MixtureSpace`` for a study: plain data, no mixture imported."""
    return {
        **_arguments(config, config.mixture, config.components),
        "tokens": _tokens(config),
        "budget": config.mixture.budget,
    }


def _phase(config: StudyConfig, phase: PhaseConfig) -> MixtureSpace:
    """The mixture of one phase: of datasets if it is fixed, else of components."""
    from optuna_demix.mixture import MixtureSpace

    if phase.fixed:
        return MixtureSpace(config.dataset_names, prior=phase.prior)
    budget = config.mixture.budget
    arguments = {
        **_arguments(config, phase, phase.components or config.components),
        "tokens": _tokens(config),
        "budget": None if budget is None else phase.share * budget,
    }
    return _made(phase, arguments)


def _made(limits: LimitsConfig, arguments: Mapping[str, Any]) -> MixtureSpace:
    from optuna_demix.mixture import MixtureSpace

    if not limits.hierarchy:
        return MixtureSpace(**arguments)
    components = list(arguments["components"])
    topics = {name: topic.model_dump() for name, topic in limits.hierarchy.items()}
    sources = [source for topic in topics.values() for source in topic["sources"]]
    for component in components:
        if component not in sources:
            raise ConfigError(f"hierarchy: no topic has component {component!r}; add it to one")
    rest = {name: value for name, value in arguments.items() if name != "components"}
    rest["composition"] = {name: rest["composition"].get(name) for name in sources}
    for source in sources:
        if source not in components:
            raise ConfigError(f"hierarchy: source {source!r} is no component; correct its name")
    return MixtureSpace.nested(topics, search=limits.search, **rest)


def _arguments(
    config: StudyConfig, limits: LimitsConfig, components: Iterable[str]
) -> dict[str, Any]:
    names = list(components)
    return {
        "components": names,
        "datasets": config.dataset_names,
        "prior": limits.prior,
        "lower": limits.lower,
        "upper": limits.upper,
        "min_weight": limits.min_weight,
        "composition": {name: config.composition_of(name) for name in names},
        "max_epochs": limits.max_epochs,
        "groups": _plain(limits.groups),
        "constraints": _plain(limits.constraints),
    }


def _tokens(config: StudyConfig) -> dict[str, float]:
    return {name: data.tokens for name, data in config.datasets.items() if data.tokens}


def _plain(models: Iterable[Any]) -> list[dict[str, Any]]:
    return [model.model_dump() for model in models]


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say in which file and section an error is."""
    try:
        yield
    except ConstraintError as error:
        raise ConstraintError(f"{where}{error}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
