"""From a user's bounds, token counts and groups to named constraints and a prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from optuna_demix.errors import ConfigError, ConstraintError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture.constraints import Constraint
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.phases import Run
from optuna_demix.mixture.sums import Group, LinearConstraint

# What fixed phases may exceed a cap by: rounding of their shares.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Specification:
    """The arguments of a `MixtureSpace`, each of them read and checked.

    Attributes:
        components: Names of the components, K.
        datasets: Names of the datasets, D.
        prior: Natural weights as given, normalized, (K,).
        lower: Least merge weights, (K,).
        upper: Largest merge weights, (K,).
        min_weight: Least weight of a component that takes part.
        composition: Share of each dataset in each component's training data, (K, D).
        usage: Tokens, budget and epochs.
        groups: The groups.
        linear: The constraints with coefficients.
        name: Prefix of the parameters, or None.
        topics: Sources of each topic of a hierarchy, by name.
        run: The run in phases whose weights they are, or None.
    """

    components: tuple[str, ...]
    datasets: tuple[str, ...]
    prior: Array
    lower: Array
    upper: Array
    min_weight: float
    composition: Array
    usage: Usage
    groups: tuple[Group, ...]
    linear: tuple[LinearConstraint, ...]
    name: str | None
    topics: tuple[tuple[str, tuple[str, ...]], ...] = ()
    run: Run | None = None

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for field in ("prior", "lower", "upper", "composition"):
            object.__setattr__(self, field, read_only(getattr(self, field)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the constructor: arrays come back read-only."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def parse(
        cls,
        components: Sequence[str],
        *,
        prior: PerName | None = None,
        lower: float | PerName = 0.0,
        upper: float | PerName = 1.0,
        min_weight: float = 0.0,
        composition: Mapping[str, Mapping[str, float]] | npt.ArrayLike | None = None,
        tokens: PerName | None = None,
        budget: float | None = None,
        max_epochs: float | Mapping[str, float] | None = None,
        groups: Iterable[Group | Mapping[str, Any]] = (),
        constraints: Iterable[LinearConstraint | Mapping[str, Any]] = (),
        datasets: Sequence[str] | None = None,
        name: str | None = None,
        topics: tuple[tuple[str, tuple[str, ...]], ...] = (),
        run: Run | None = None,
    ) -> Specification:
        """Read the arguments of these names.

        Raises:
            ConfigError: If one cannot be used.
        """
        names = arguments.names_of(components, "components", "weights belong in prior=")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ConfigError(f"name must be a non-empty string or None, got {name!r}")
        shares, sets = arguments.composition_of(composition, names, datasets)
        usage = Usage.parse(sets, tokens, budget, max_epochs)
        parsed = tuple(Group.parse(group) for group in groups)
        check_groups(parsed, names, sets)
        linear = tuple(LinearConstraint.parse(each) for each in constraints)
        for each in linear:
            known = names if each.of == "weights" else sets
            what = f"constraint {each.title} (of {each.of})"
            arguments.check_known(each.coefficients, known, what)
        masses = prior_masses(prior, usage.tokens, names)
        return cls(
            components=names,
            datasets=sets,
            prior=masses / masses.sum(),
            lower=arguments.bounds_of(lower, names, "lower bound", 0.0),
            upper=arguments.bounds_of(upper, names, "upper bound", 1.0),
            min_weight=arguments.number(min_weight, "min_weight", least=0.0, most=1.0),
            composition=shares,
            usage=usage,
            groups=parsed,
            linear=linear,
            name=name,
            topics=topics,
            run=run,
        )

    @property
    def least_weights(self) -> Array:
        """Least weight of each component that takes part, 0 where there is none, (K,)."""
        if self.run is None:
            return np.full(len(self.components), self.min_weight)
        return self.run.join(lambda p: np.full(len(p.mixture), p.mixture.min_weight))

    @property
    def used(self) -> Array:
        """Data shares of the run that are fixed, (D,)."""
        return np.zeros(len(self.datasets)) if self.run is None else self.run.used

    @property
    def searched(self) -> float:
        """Share of the run's budget that the weights distribute."""
        return 1.0 if self.run is None else self.run.searched

    def constraints(self) -> tuple[Constraint, ...]:
        """Bounds, caps, groups and linear constraints, where they are more than the simplex' own.

        Raises:
            ConstraintError: If the fixed phases of a run break one alone.
        """
        names, sets = self.components, self.datasets
        table = self.searched * self.composition
        of_phases: list[Constraint] = []
        box = (np.zeros(len(names)), np.ones(len(names)))
        if self.run is not None:  # what a phase bounds is told as the phase's
            of_phases = self.run.constraints()
            box = self.run.box
        return (
            *of_phases,
            *bound_constraints(names, self.lower, self.upper, *box),
            *cap_constraints(sets, table, self.usage, self.used),
            *group_constraints(self.groups, names, sets, table, self.used),
            *linear_constraints(self.linear, names, sets, table, self.used),
        )


def read_only(values: npt.ArrayLike) -> Array:
    """Return a copy that cannot be written to."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Usage:
    """How much of each dataset there is, and how much of it a run may use.

    Attributes:
        tokens: Dataset -> tokens, where known.
        budget: Tokens of the planned training run, or None.
        max_epochs: Dataset -> how often it may be repeated, where limited.
        caps: Largest data shares, infinite where unlimited, (D,).
    """

    tokens: dict[str, float]
    budget: float | None
    max_epochs: dict[str, float]
    caps: Array

    @classmethod
    def parse(
        cls,
        datasets: Sequence[str],
        tokens: PerName | None,
        budget: float | None,
        max_epochs: float | Mapping[str, float] | None,
    ) -> Usage:
        """Read the arguments of these names.

        Raises:
            ConfigError: If one cannot be used, or ``max_epochs`` lacks a count it needs.
        """
        size = None if budget is None else arguments.number(budget, "budget", least=0.0)
        counts = _counts(tokens, datasets, "tokens")
        if max_epochs is not None and not isinstance(max_epochs, Mapping):
            max_epochs = dict.fromkeys(datasets, max_epochs)
        epochs = _counts(max_epochs, datasets, "max_epochs")
        missing = [dataset for dataset in epochs if dataset not in counts]
        if missing:
            _refuse_epochs(f"the tokens of {', '.join(map(repr, missing))}")
        if epochs and not size:
            _refuse_epochs("a budget above 0, the tokens of the planned training run")
        caps = np.full(len(datasets), np.inf)
        for dataset, repeats in epochs.items():
            caps[datasets.index(dataset)] = repeats * counts[dataset] / (size or np.inf)
        return cls(counts, size, epochs, caps)


def _counts(values: PerName | None, datasets: Sequence[str], what: str) -> dict[str, float]:
    given = {} if values is None else arguments.entries(values, datasets, what)
    return {d: arguments.number(v, f"{what} of {d!r}", least=0.0) for d, v in given.items()}


def _refuse_epochs(missing: str) -> NoReturn:
    raise ConfigError(f"max_epochs caps a share at max_epochs * tokens / budget: give {missing}")


def prior_masses(
    values: PerName | None, tokens: Mapping[str, float], components: Sequence[str]
) -> Array:
    """Masses of the prior, (K,), not normalized: as given, or tokens, or all the same."""
    if values is not None:
        return arguments.shares_of(values, components, "prior")
    masses = np.array([tokens.get(component, 0.0) for component in components])
    known = all(component in tokens for component in components)
    return masses if known and masses.sum() > 0 else np.ones(len(components))


def check_groups(
    groups: Sequence[Group], components: Sequence[str], datasets: Sequence[str]
) -> None:
    """Refuse groups of one name, and members which are no component or dataset.

    Raises:
        ConfigError: For the first of them.
    """
    names = [group.name for group in groups]
    for group in groups:
        if names.count(group.name) > 1:
            raise ConfigError(f"groups: {group.name!r} is named twice")
        known = components if group.of == "weights" else datasets
        arguments.check_known(group.members, known, f"group {group.name!r} (of {group.of})")


def bound_constraints(
    components: Sequence[str], lower: Array, upper: Array, least: Array, most: Array
) -> list[Constraint]:
    """Bounds of single merge weights, where they are more than the least and most there are."""
    constraints = []
    for i, (component, axis) in enumerate(zip(components, np.eye(len(components)), strict=True)):
        pinned = f"weight of {component!r} pinned to {lower[i]:g}" if lower[i] == upper[i] else ""
        if lower[i] > least[i]:
            text = pinned or f"lower bound {lower[i]:g} of {component!r}"
            constraints.append(Constraint(-axis, -float(lower[i]), text, -1.0))
        if upper[i] < most[i]:
            text = pinned or f"upper bound {upper[i]:g} of {component!r}"
            constraints.append(Constraint(axis, float(upper[i]), text))
    return constraints


def cap_constraints(
    datasets: Sequence[str], composition: Array, usage: Usage, used: Array
) -> list[Constraint]:
    """Caps on data shares, with the counts they come from.

    Raises:
        ConstraintError: If more than a cap is used already.
    """
    constraints = []
    for d, dataset in enumerate(datasets):
        cap = float(usage.caps[d])
        if cap < 1:
            counts = (
                f"{usage.max_epochs[dataset]:g} epochs x {_short(usage.tokens[dataset])} tokens"
            )
            source = f"{counts} / {_short(usage.budget or 0.0)}"
            text = f"cap {cap:.4g} on the share of {dataset!r} ({source})"
            taken = float(used[d])
            if taken > cap + _ROUNDING:
                raise ConstraintError(
                    f"the fixed phases give {dataset!r} {taken:.4g} of the run, which breaks the "
                    f"{text}; give it less in them, or raise max_epochs"
                )
            constraints.append(Constraint(composition[:, d], cap - taken, text, 1.0, taken))
    return constraints


def group_constraints(
    groups: Sequence[Group],
    components: Sequence[str],
    datasets: Sequence[str],
    composition: Array,
    used: Array,
) -> list[Constraint]:
    """Bounds on sums of merge weights or data shares."""
    constraints = []
    for group in groups:
        taken = 0.0
        if group.of == "weights":
            row = np.isin(components, group.members).astype(np.float64)
        else:
            summed = np.isin(datasets, group.members)
            row, taken = composition[:, summed].sum(axis=1), float(used[summed].sum())
        members = " + ".join(map(repr, group.members))
        what = f"group {group.name!r} ({group.of} of {members})"
        lower = group.lower if group.lower > 0 else None
        upper = group.upper if group.upper < 1 else None
        constraints += _two_sided(row, taken, lower, upper, partial(_bound_text, what))
    return constraints


def linear_constraints(
    given: Sequence[LinearConstraint],
    components: Sequence[str],
    datasets: Sequence[str],
    composition: Array,
    used: Array,
) -> list[Constraint]:
    """Bounds on sums with coefficients."""
    constraints = []
    for each in given:
        names = components if each.of == "weights" else datasets
        coefficients = np.array([each.coefficients.get(name, 0.0) for name in names])
        of_weights = each.of == "weights"
        row = coefficients if of_weights else composition @ coefficients
        taken = 0.0 if of_weights else float(used @ coefficients)
        what = f"constraint {each.title} (of {each.of})"
        text = partial(_linear_text, each, what)
        constraints += _two_sided(row, taken, each.lower, each.upper, text)
    return constraints


def _two_sided(
    row: Array,
    taken: float,
    lower: float | None,
    upper: float | None,
    text: Callable[[str, float], str],
) -> list[Constraint]:
    """``lower <= row @ w + taken <= upper``, where given; a text of side and bound tells it."""
    constraints = []
    if lower is not None:
        constraints.append(Constraint(-row, taken - lower, text("lower", lower), -1.0, taken))
    if upper is not None:
        constraints.append(Constraint(row, upper - taken, text("upper", upper), 1.0, taken))
    return constraints


def _bound_text(what: str, side: str, bound: float) -> str:
    return f"{side} bound {bound:g} of {what}"


def _linear_text(constraint: LinearConstraint, what: str, side: str, bound: float) -> str:
    """A bound in words; what has a name and is compared with 0 is told by its name alone."""
    if constraint.name is not None and bound == 0.0:
        return what
    if constraint.lower == constraint.upper:
        return f"value {bound:g} of {what}"
    return _bound_text(what, side, bound)


def _short(count: float) -> str:
    """Write a large number shortly: 3e9, 1.5e10, 250."""
    return f"{count:.4g}".replace("e+0", "e").replace("e+", "e") if count >= 1e5 else f"{count:g}"
