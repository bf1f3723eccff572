"""A mixture in all its units: merge weights, data shares, topics and phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna_demix._text_table import ruled_table

if TYPE_CHECKING:
    from optuna_demix._typing import FloatArray
    from optuna_demix.mixture import MixtureSpace


@dataclass(frozen=True)
class PhaseWeights:
    """The mixture of one phase of a run.

    Attributes:
        share: The phase's share of the run's budget.
        fixed: Whether it was given and not searched.
        merge_weights: By component; they sum to 1. Empty where the phase is fixed.
        data_shares: By dataset: what to train on in this phase; they sum to 1.
    """

    share: float
    fixed: bool
    merge_weights: dict[str, float]
    data_shares: dict[str, float]


@dataclass(frozen=True)
class Weights:
    """One mixture in both units.

    Attributes:
        merge_weights: By component; they sum to 1.
        data_shares: By dataset: what a training run would use, in phases the whole of it; they
            sum to 1.
        topics: Merge weight of each topic, where the mixture is nested.
        phases: The mixture of each phase in their order, where the run has phases.
    """

    merge_weights: dict[str, float]
    data_shares: dict[str, float]
    topics: dict[str, float] = field(default_factory=dict)
    phases: dict[str, PhaseWeights] = field(default_factory=dict)

    @classmethod
    def of(cls, space: MixtureSpace, w: FloatArray) -> Weights:
        """Describe merge weights (K,) of a space."""
        phases = {}
        for name, own in space.by_phase(w).items():
            phase = space.phases_of_run[name]
            mixture = phase.mixture
            phases[name] = PhaseWeights(
                share=phase.share,
                fixed=phase.fixed,
                merge_weights={} if phase.fixed else named(mixture.components, own),
                data_shares=named(mixture.datasets, mixture.data_shares(own)),
            )
        return cls(
            merge_weights=named(space.components, w),
            data_shares=named(space.datasets, space.data_shares(w)),
            topics=space.topic_weights(w),
            phases=phases,
        )

    def to_dict(self) -> dict[str, Any]:
        """Topics and phases, where there are any, as JSON can hold them."""
        plain: dict[str, Any] = {"topics": self.topics} if self.topics else {}
        if self.phases:
            plain["phases"] = {name: vars(phase) for name, phase in self.phases.items()}
        return plain

    def tables(self, title: str = "") -> str:
        """What the mixture is, as tables: the phases in order, or the only mixture; topics."""
        tables = []
        for name, phase in self.phases.items():
            about = f"{name}: {phase.share:.4g} of the run" + (", fixed" if phase.fixed else "")
            tables.append(_shares_table(phase.merge_weights, phase.data_shares, about))
        if self.phases:
            tables.append(_shares_table({}, self.data_shares, title or "whole run"))
        else:
            tables.append(_shares_table(self.merge_weights, self.data_shares, title))
        if self.topics:
            rows = [[topic, _share(weight)] for topic, weight in self.topics.items()]
            tables.append(ruled_table(["topic", "merge weight"], rows))
        return "\n\n".join(tables)


def named(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    """Values (n,) by name."""
    return dict(zip(names, values.tolist(), strict=True))


def _shares_table(
    merge_weights: Mapping[str, float], data_shares: Mapping[str, float], title: str
) -> str:
    """Merge weights by component beside data shares by dataset."""
    if not merge_weights:
        return ruled_table([title, "data share"], [[n, _share(s)] for n, s in data_shares.items()])
    rows = [
        [name, _share(merge_weights.get(name)), _share(data_shares.get(name))]
        for name in dict.fromkeys([*merge_weights, *data_shares])
    ]
    return ruled_table([title, "merge weight", "data share"], rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
