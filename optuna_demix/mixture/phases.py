"""Phases of a training run: mixtures one after another, searched as one vector.

Phase p has a share s_p of the budget and weights w_p. Those of the phases that are searched are
joined as ``s_p / S * w_p``, S being the sum of their shares: they sum to 1, so that they are one
mixture again. What bounds a phase bounds its block of them; what bounds the run bounds
``S * w @ C`` plus what the fixed phases use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture.constraints import Constraint
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.sums import read_fields

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
        """Check the fields."""
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

    @classmethod
    def parse(cls, value: Any) -> Phase:
        """Return the phase itself, or the one of a mapping of its fields.

        Raises:
            ConfigError: If it is anything else, or a field cannot be used.
        """
        return read_fields(cls, value, ("name", "share", "mixture"), "phase")


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


@dataclass(frozen=True, eq=False)
class Run:
    """A run in phases, seen from the weights that are searched.

    Attributes:
        phases: All phases, in their order.
        components: Names of the searched weights: the components', with ``"<phase>/"`` before
            them where two phases have one in common, K.
        datasets: Names of the datasets of all phases, D.
        composition: Data shares of the searched weights, (K, D).
        searched: Share of the budget of the searched phases, S.
        used: Data shares that the fixed phases take of the run, (D,).
    """

    phases: tuple[Phase, ...]
    components: tuple[str, ...]
    datasets: tuple[str, ...]
    composition: Array
    searched: float
    used: Array

    @classmethod
    def of(cls, phases: Sequence[Phase]) -> Run:
        """Join phases.

        Raises:
            ConfigError: If all of them are fixed.
        """
        free = [phase for phase in phases if not phase.fixed]
        if not free:
            raise ConfigError("all phases are fixed; there is nothing to search")
        names = [name for phase in free for name in phase.mixture.components]
        if len(set(names)) < len(names):
            names = [f"{phase.name}/{name}" for phase in free for name in phase.mixture.components]
        datasets = tuple(dict.fromkeys(d for phase in phases for d in phase.mixture.datasets))
        used = np.zeros(len(datasets))
        for phase in phases:
            if phase.fixed:
                used += phase.share * (phase.mixture.prior @ _table(phase.mixture, datasets))
        return cls(
            phases=tuple(phases),
            components=tuple(names),
            datasets=datasets,
            composition=np.concatenate([_table(phase.mixture, datasets) for phase in free]),
            searched=sum(phase.share for phase in free),
            used=used,
        )

    def join(self, values: Callable[[Phase], Array]) -> Array:
        """What each searched phase has for its weights (K_p,), as parts of the search, (K,)."""
        return np.concatenate([self._part(phase) * values(phase) for phase, _ in self._blocks()])

    @property
    def box(self) -> tuple[Array, Array]:
        """Least and largest weights of the phases, (K,) and (K,)."""
        return self.join(lambda p: p.mixture.lower), self.join(lambda p: p.mixture.upper)

    def constraints(self) -> list[Constraint]:
        """What holds within each searched phase, as constraints on the joined weights."""
        constraints = []
        blocks = self._blocks()
        for phase, block in blocks:
            part = self._part(phase)
            here = np.zeros(len(self.components))
            here[block] = 1.0
            if len(blocks) > 1:
                text = f"share {phase.share:.4g} of the budget of phase {phase.name!r}"
                constraints.append(Constraint(here, part, text, self.searched))
                constraints.append(Constraint(-here, -part, text, -self.searched))
            for constraint in phase.mixture._constraints:
                row = np.zeros(len(self.components))
                row[block] = constraint.row
                text = f"{constraint.text} in phase {phase.name!r}"
                bound = part * constraint.bound
                constraints.append(Constraint(row, bound, text, constraint.unit / part))
        return constraints

    def split(self, w: Array) -> dict[str, Array]:
        """Each phase's own mixture (K_p,) by name, from joined weights (K,)."""
        found = {phase.name: phase.mixture.prior for phase in self.phases}
        for phase, block in self._blocks():
            total = w[block].sum()
            if total > 0.0:
                found[phase.name] = w[block] / total
        return found

    def _part(self, phase: Phase) -> float:
        return phase.share / self.searched

    def _blocks(self) -> list[tuple[Phase, slice]]:
        """The searched phases, and where their weights stand."""
        blocks, first = [], 0
        for phase in self.phases:
            if not phase.fixed:
                blocks.append((phase, slice(first, first + len(phase.mixture))))
                first += len(phase.mixture)
        return blocks


def _table(mixture: MixtureSpace, datasets: Sequence[str]) -> Array:
    """Composition of a phase over the datasets of all, (K_p, D)."""
    table = np.zeros((len(mixture), len(datasets)))
    table[:, [datasets.index(name) for name in mixture.datasets]] = mixture.composition
    return table
