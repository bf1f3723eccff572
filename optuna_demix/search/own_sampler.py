"""What a study's own sampler knows: its mixtures and how it searches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_demix._wording import shown
from optuna_demix.errors import ConfigError, StudyError
from optuna_demix.search.options import SearchOptions
from optuna_demix.search.sampler import DemixSampler
from optuna_demix.search.spaces import as_spaces

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.mixture import MixtureSpace


def options_of(study: Study, options: SearchOptions | None = None) -> SearchOptions:
    """The options to read a study with.

    Args:
        study: The study.
        options: Those that were given; ``None`` for those of the study's own sampler, or the
            default ones if it is another sampler.

    Raises:
        ConfigError: If they are no :class:`SearchOptions`, or weigh other objectives.
    """
    if options is None:
        sampler = _sampler_of(study)
        options = SearchOptions() if sampler is None else sampler.options
    elif not isinstance(options, SearchOptions):
        raise ConfigError(f"options must be SearchOptions, got {shown(options)}")
    options.check_objectives(len(study.directions))
    return options


def spaces_of(
    study: Study, space: MixtureSpace | Sequence[MixtureSpace] | None = None
) -> tuple[MixtureSpace, ...]:
    """The mixtures of a study.

    Args:
        study: The study.
        space: Those that were given; ``None`` for those of the study's own sampler.

    Raises:
        ConfigError: If the study is none, or the mixtures are neither given nor known to its
            sampler.
        StudyError: If its sampler searches a mixture that is not among those given.
    """
    from optuna.study import Study

    if not isinstance(study, Study):
        raise ConfigError(f"study must be an optuna.Study, got {shown(study)}")
    sampler = _sampler_of(study)
    if space is None:
        if sampler is None:
            raise ConfigError(
                f"the sampler of study {study.study_name!r} is a {type(study.sampler).__name__} "
                "and does not know its mixture; pass the MixtureSpace"
            )
        return sampler.spaces
    spaces = as_spaces(space)
    given = {name for each in spaces for name in each.param_names}
    for other in () if sampler is None else sampler.spaces:
        if given.isdisjoint(other.param_names):
            raise StudyError(
                f"study {study.study_name!r} also searches the mixture {other.name or ''!r} of "
                f"{', '.join(other.components)}; pass all its mixtures together"
            )
    return spaces


def _sampler_of(study: Study) -> DemixSampler | None:
    """The study's own ``DemixSampler``, also where it is wrapped; ``None`` if it has another."""
    from optuna.samplers import PartialFixedSampler

    sampler = study.sampler
    while isinstance(sampler, PartialFixedSampler):
        sampler = sampler._base_sampler
    return sampler if isinstance(sampler, DemixSampler) else None
