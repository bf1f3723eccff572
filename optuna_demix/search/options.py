"""What sampler, recommendation, terminator and report of one study must agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

from optuna_demix._wording import shortened
from optuna_demix.errors import ConfigError, StudyError
from optuna_demix.mixture import MixtureSpace
from optuna_demix.surrogate import check_kind

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.search.sampler import DemixSampler

SCHEDULES = ("continuous", "demix")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a study is searched, and how its trials are read.

    :class:`~optuna_demix.DemixSampler` holds one made of its arguments; ``recommend``,
    ``DemixTerminator`` and the report take it from the sampler of the study.

    Attributes:
        surrogate: Kind of :class:`~optuna_demix.surrogate.Surrogate`; ``None`` for ``"auto"``,
            and for the published ``"lightgbm"`` with ``schedule="demix"``.
        composite: Merit of several objectives: ``"rank"`` (mean percentile rank), ``"mean"``,
            weights by objective, or ``"pareto"`` (another random trade-off for each trial).
        schedule: ``"continuous"``, or ``"demix"`` for the published iterations.
        kl: Merit given up for each nat of Kullback-Leibler divergence from the prior.
        seed: Seed of everything that is random. With ``None`` the sampler draws one, and
            recommendation, terminator and report use 0.
        warm_start: Earlier studies whose trials are learned from as well.

    Raises:
        ConfigError: If a value is out of range, unknown or of another type.
    """

    surrogate: str | None = None
    composite: str | Sequence[float] = "rank"
    schedule: Literal["continuous", "demix"] = "continuous"
    kl: float = 0.0
    seed: int | None = None
    warm_start: Sequence[Study] = ()

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be 'continuous' or 'demix', got {self.schedule!r}")
        if not (isinstance(self.kl, Real) and math.isfinite(self.kl) and self.kl >= 0.0):
            raise ConfigError(f"kl must be a finite number from 0 on, got {self.kl!r}")
        is_seed = isinstance(self.seed, Integral) and 0 <= self.seed < 2**32
        if self.seed is not None and not is_seed:
            raise ConfigError(
                f"seed must be a whole number from 0 to 2**32 - 1, or None; got {self.seed!r}"
            )
        check_kind(self.kind)
        if isinstance(self.composite, str):
            if self.composite not in ("rank", "mean", "pareto"):
                raise ConfigError(
                    f"composite {self.composite!r} is unknown; use 'rank', 'mean', 'pareto' or "
                    "one weight for each objective"
                )
        else:
            object.__setattr__(self, "composite", _weights(self.composite))
        object.__setattr__(self, "warm_start", _studies(self.warm_start))

    @property
    def kind(self) -> str:
        """Kind of the surrogate."""
        return self.surrogate or ("lightgbm" if self.schedule == "demix" else "auto")

    @property
    def scalar_composite(self) -> str | Sequence[float]:
        """The composite where one merit is needed: ranks in place of ``"pareto"``."""
        return "rank" if self.composite == "pareto" else self.composite

    def check_objectives(self, n_objectives: int) -> None:
        """Check that a composite of weights has one for each objective.

        Raises:
            ConfigError: If their number is another one.
        """
        if not isinstance(self.composite, str) and len(self.composite) != n_objectives:
            raise ConfigError(
                f"composite has {len(self.composite)} weights and the study {n_objectives} "
                "objectives; give one weight for each, in their order"
            )


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
        raise ConfigError(f"options must be SearchOptions, got {_shown(options)}")
    options.check_objectives(len(study.directions))
    return options


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
            f"space must be a MixtureSpace or a sequence of them, got {_shown(space)}"
        )
    names = [name for each in spaces for name in each.param_names]
    if len(set(names)) < len(names):
        raise ConfigError(
            "two mixtures have a component in common; give each a MixtureSpace(name=…)"
        )
    return spaces


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
        raise ConfigError(f"study must be an optuna.Study, got {_shown(study)}")
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

    from optuna_demix.search.sampler import DemixSampler

    sampler = study.sampler
    while isinstance(sampler, PartialFixedSampler):
        sampler = sampler._base_sampler
    return sampler if isinstance(sampler, DemixSampler) else None


def _weights(given: object) -> tuple[float, ...]:
    try:
        weights = tuple(float(weight) for weight in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ConfigError(
            "composite must be 'rank', 'mean', 'pareto' or one weight for each objective; "
            f"got {_shown(given)}"
        ) from None
    if not all(math.isfinite(w) and w >= 0.0 for w in weights) or not sum(weights) > 0.0:
        raise ConfigError(
            f"composite weights must be finite, not negative and not all 0; got {list(weights)}"
        )
    return weights


def _studies(given: object) -> tuple[Study, ...]:
    if isinstance(given, Sequence) and not given:
        return ()
    from optuna.study import Study

    if not isinstance(given, Sequence) or not all(isinstance(each, Study) for each in given):
        raise ConfigError(
            "warm_start must be a sequence of earlier studies, as from optuna.load_study; "
            f"got {_shown(given)}"
        )
    return tuple(given)


def _shown(given: object) -> str:
    return f"{type(given).__name__} {shortened(repr(given), 60)}"
