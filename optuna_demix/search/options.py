"""What sampler, recommendation, terminator and report of one study must agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

from optuna_demix._wording import shown
from optuna_demix.errors import ConfigError
from optuna_demix.search.rows.prior_mean import benchmarks_of
from optuna_demix.search.rows.warm_map import WarmMap
from optuna_demix.surrogate import check_kind

if TYPE_CHECKING:
    from optuna.study import Study

    from optuna_demix.mixture import MixtureSpace
    from optuna_demix.search.rows.prior_mean import ScoreOfMixtures

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
        warm_map: What their components became, ``{old: {new: share}}``, see
            :class:`~optuna_demix.DemixSampler`.
        prior_mean: Cheap prediction of the scores that the surrogate starts from, see
            :class:`~optuna_demix.DemixSampler`.

    Raises:
        ConfigError: If a value is out of range, unknown or of another type.
    """

    surrogate: str | None = None
    composite: str | Sequence[float] = "rank"
    schedule: Literal["continuous", "demix"] = "continuous"
    kl: float = 0.0
    seed: int | None = None
    warm_start: Sequence[Study] = ()
    warm_map: Mapping[str, Mapping[str, float]] | None = None
    prior_mean: ScoreOfMixtures | None = None

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
        if self.prior_mean is not None:
            benchmarks_of(self.prior_mean)
            if self.schedule == "demix":
                raise ConfigError(
                    "prior_mean does not go with schedule='demix', which is the published one; "
                    "use 'continuous'"
                )
        if isinstance(self.composite, str):
            if self.composite not in ("rank", "mean", "pareto"):
                raise ConfigError(
                    f"composite {self.composite!r} is unknown; use 'rank', 'mean', 'pareto' or "
                    "one weight for each objective"
                )
        else:
            object.__setattr__(self, "composite", _weights(self.composite))
        object.__setattr__(self, "warm_start", _studies(self.warm_start))
        if self.warm_map is not None:
            WarmMap(self.warm_map)
            if self.schedule == "demix":
                raise ConfigError(
                    "warm_map does not go with schedule='demix', which is the published one; "
                    "use 'continuous'"
                )

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

    def check_spaces(self, spaces: Sequence[MixtureSpace]) -> None:
        """Check that there is one mixture only, if there is a prior mean or a map of components.

        Raises:
            ConfigError: If there are several: both are about one. Or if the map names others.
        """
        if self.warm_map is not None:
            if len(spaces) > 1:
                raise ConfigError(
                    f"warm_map is about one mixture, but {len(spaces)} are searched; leave it out"
                )
            WarmMap(self.warm_map).check(spaces[0].components)
        if self.prior_mean is not None and len(spaces) > 1:
            raise ConfigError(
                f"prior_mean predicts the scores of one mixture, but {len(spaces)} are searched; "
                "leave it out"
            )


def _weights(given: object) -> tuple[float, ...]:
    try:
        weights = tuple(float(weight) for weight in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ConfigError(
            "composite must be 'rank', 'mean', 'pareto' or one weight for each objective; "
            f"got {shown(given)}"
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
            f"got {shown(given)}"
        )
    return tuple(given)
