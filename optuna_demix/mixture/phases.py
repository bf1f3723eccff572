"""Phases of a training run: mixtures one after another, as one vector of parts of the whole run.

With a share s of the budget, phase p and its weights w_p become parts ``s_p * w_p``. Those of all
phases sum to 1, so that they are one mixture again: what bounds a phase bounds a block of it, what
bounds the run bounds all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture.constraints import Constraint
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.sums import check_fields

if TYPE_CHECKING:
    from optuna_demix.mixture.space import MixtureSpace

# Shares of the budget are written by hand: what misses 1 by more than this is refused.
_SUM = 1e-6


@dataclass(frozen=True)
class Phase:
    """A stage of the run with a mixture of its own.

    Attributes:
        name: Name of the phase, a prefix of its weights' names.
        share: Its share of the run's training tokens, above 0.
        mixture: What it may mix, with the constraints that hold in this phase.
        fixed: Whether its mixture is the prior and nothing of it is searched.

    Raises:
        ConfigError: If a field cannot be used.
    """

    name: str
    share: float
    mixture: MixtureSpace
    fixed: bool = False

    def __post_init__(self) -> None:
        """Check the fields, and pin the weights of a fixed phase."""
        from optuna_demix.mixture.space import MixtureSpace

        if not isinstance(self.name, str) or not self.name.strip():
            raise ConfigError(f"a phase needs a non-empty name, got {self.name!r}")
        share = arguments.number(self.share, f"share of phase {self.name!r}", least=0.0, most=1.0)
        if share == 0.0:
            raise ConfigError(f"phase {self.name!r} has no share of the budget; leave it out")
        object.__setattr__(self, "share", share)
        if not isinstance(self.mixture, MixtureSpace):
            raise ConfigError(
                f"phase {self.name!r}: its mixture is a MixtureSpace, got {self.mixture!r}"
            )
        if self.fixed:
            prior = dict(zip(self.mixture.components, self.mixture.prior.tolist(), strict=True))
            object.__setattr__(self, "mixture", self.mixture.pin(prior))

    @classmethod
    def parse(cls, value: Any) -> Phase:
        """Return the phase itself, or the one of a mapping of its fields.

        Raises:
            ConfigError: If it is anything else, or a field cannot be used.
        """
        if isinstance(value, Phase):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"a phase is a Phase or a mapping of its fields, got {value!r}")
        check_fields(cls, value, ("name", "share", "mixture"), f"phase {value.get('name', '?')!r}")
        return cls(**value)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of its weights in the whole run."""
        return tuple(f"{self.name}/{component}" for component in self.mixture.components)


def read_phases(values: Iterable[Any]) -> tuple[Phase, ...]:
    """Read the phases of a run, in their order.

    Raises:
        ConfigError: If there is none, two have one name, or their shares do not sum to 1.
    """
    if isinstance(values, Mapping | str) or not isinstance(values, Iterable):
        raise ConfigError(f"phases are a list in the order of the run, got {values!r}")
    phases = tuple(Phase.parse(value) for value in values)
    if not phases:
        raise ConfigError("phases: at least one is needed")
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"phases: {name!r} is named twice")
    total = sum(phase.share for phase in phases)
    if abs(total - 1.0) > _SUM:
        raise ConfigError(
            f"the phases' shares of the budget sum to {total:.9g}; they must sum to 1"
        )
    return tuple(replace(phase, share=phase.share / total) for phase in phases)


def whole_run(phases: Sequence[Phase]) -> dict[str, Any]:
    """Arguments of the run's `MixtureSpace` that follow from its phases."""
    scale = np.repeat([phase.share for phase in phases], [len(p.mixture) for p in phases])
    mixtures = [phase.mixture for phase in phases]
    datasets = list(dict.fromkeys(name for mixture in mixtures for name in mixture.datasets))
    rows = []
    for mixture in mixtures:
        table = np.zeros((len(mixture), len(datasets)))
        table[:, [datasets.index(name) for name in mixture.datasets]] = mixture.composition
        rows.append(table)
    return {
        "components": [name for phase in phases for name in phase.components],
        "prior": scale * np.concatenate([mixture.prior for mixture in mixtures]),
        "lower": scale * np.concatenate([mixture.lower for mixture in mixtures]),
        "upper": scale * np.concatenate([mixture.upper for mixture in mixtures]),
        "composition": np.concatenate(rows),
        "datasets": datasets,
    }


def phase_constraints(phases: Sequence[Phase]) -> list[Constraint]:
    """What holds within each phase, as constraints on the parts of the whole run."""
    size = sum(len(phase.mixture) for phase in phases)
    constraints = []
    first = 0
    for phase in phases:
        block = slice(first, first + len(phase.mixture))
        first = block.stop
        share = phase.share
        here = np.zeros(size)
        here[block] = 1.0
        if len(phases) > 1:
            text = f"share {share:.4g} of the budget of phase {phase.name!r}"
            constraints.append(Constraint(here, share, text))
            constraints.append(Constraint(-here, -share, text, -1.0))
        for constraint in phase.mixture._constraints:
            row = np.zeros(size)
            row[block] = constraint.row
            text = f"{constraint.text} in phase {phase.name!r}"
            unit = constraint.unit / share
            constraints.append(Constraint(row, share * constraint.bound, text, unit))
    return constraints


def split(phases: Sequence[Phase], parts: Array) -> dict[str, Array]:
    """Mixtures (K_p,) of the phases by name, from parts of the whole run (K,)."""
    found: dict[str, Array] = {}
    first = 0
    for phase in phases:
        part = parts[first : first + len(phase.mixture)]
        first += len(phase.mixture)
        total = part.sum()
        found[phase.name] = part / total if total > 0 else phase.mixture.prior
    return found
