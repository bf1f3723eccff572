"""`MixtureSpace`: the mixtures a search may try."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture import identity as _identity
from optuna_demix.mixture._arguments import PerName
from optuna_demix.mixture._specification import Specification, read_only
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.hierarchy import Hierarchy, Search, Topic
from optuna_demix.mixture.parameters import ParameterSpace
from optuna_demix.mixture.phases import Phase, Run, read_phases
from optuna_demix.mixture.pins import pinned
from optuna_demix.mixture.sums import Group, LinearConstraint

# Pinned spaces that are kept: a sampler asks for the same ones again and again.
_KEPT_PINS = 16


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MixtureSpace(ParameterSpace):
    """The polytope of allowed merge weights inside the simplex. Immutable, picklable, comparable.

    A point is a vector of merge weights ``w`` (K,), one a component, which sum to 1. The data
    shares it stands for are ``r = w @ composition`` (D,). Bounds apply to single weights, caps to
    single shares, groups to sums of either.

    Example:
        >>> import numpy as np
        >>> space = MixtureSpace(
        ...     ["web", "code", "math"],
        ...     tokens={"web": 8e9, "code": 1.5e9, "math": 5e8},
        ...     budget=1e10,
        ...     max_epochs=4,
        ... )
        >>> w = space.sample(1000, np.random.default_rng(0))
        >>> w.shape, bool((w[:, 2] <= 0.2).all())
        ((1000, 3), True)

    Args:
        components: Names of the components, K of them, distinct.
        prior: Natural weight of each component, a mapping or a sequence, normalized here. Default:
            the tokens of the datasets which bear the components' names if all do, else uniform.
        lower: Least merge weight: a number for all, a mapping with gaps (0) or a sequence.
        upper: Largest merge weight, likewise (gaps are 1). Equal bounds pin a weight.
        min_weight: Least weight of a component that takes part: every weight is 0 or at least
            this. In [0, 1].
        composition: What each component was trained on: a mapping component -> dataset -> share or
            an array (K, D). Rows sum to 1. Default: component i is dataset i alone.
        tokens: Tokens in each dataset, a mapping with gaps or a sequence (D,).
        budget: Tokens of the planned training run.
        max_epochs: How often a dataset may be repeated in that run, a number for all or a mapping
            with gaps. Caps the share of dataset d at ``max_epochs * tokens / budget``.
        groups: Bounds on sums of merge weights or data shares: `Group` or mappings of its fields.
        constraints: Bounds on sums with coefficients: `LinearConstraint` or mappings of its
            fields.
        datasets: Names of the datasets, D of them. Default: those named in ``composition``, or
            the components.
        name: Prefix ``"<name>/"`` of the parameters, for studies which hold several mixtures.

    Attributes:
        components: Names of the components, K.
        datasets: Names of the datasets, D.
        prior: Natural weights, projected on the polytope if they lie outside, (K,).
        lower: Least merge weights as given, (K,).
        upper: Largest merge weights as given, (K,).
        min_weight: Least weight of a component that takes part; 0 if there is no such minimum.
        composition: Share of each dataset in each component's training data, (K, D).
        caps: Largest data shares, infinite where there is no cap, (D,).
        tokens: Tokens in each dataset, NaN where unknown, (D,); None if none were given.
        budget: Tokens of the planned training run, or None.
        groups: The groups.
        constraints: The constraints with coefficients.
        topics: Sources of each topic by its name, where the mixture is nested.
        phases_of_run: The phases by name, where the run has phases.
        name: The prefix' name, or None.
        param_names: Names of the Optuna parameters, in the order of the components, K.

    Raises:
        ConfigError: If an argument is malformed; the message names the entry.
        ConstraintError: If no mixture satisfies all constraints. The message names a minimal set
            of them which exclude each other.
    """

    datasets: tuple[str, ...]
    lower: Array
    upper: Array
    composition: Array
    caps: Array
    tokens: Array | None
    budget: float | None
    groups: tuple[Group, ...]
    constraints: tuple[LinearConstraint, ...]
    topics: dict[str, tuple[str, ...]]
    phases_of_run: dict[str, Phase]

    _given: Specification

    def __init__(
        self,
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
    ) -> None:
        """Read and check the arguments; see the class."""
        given = Specification.parse(
            components,
            prior=prior,
            lower=lower,
            upper=upper,
            min_weight=min_weight,
            composition=composition,
            tokens=tokens,
            budget=budget,
            max_epochs=max_epochs,
            groups=groups,
            constraints=constraints,
            datasets=datasets,
            name=name,
        )
        self._take(given, is_checked=False)

    @classmethod
    def nested(
        cls,
        topics: Mapping[str, Sequence[str] | Topic | Mapping[str, Any]],
        *,
        search: Search = "all",
        prior: PerName | None = None,
        groups: Iterable[Group | Mapping[str, Any]] = (),
        constraints: Iterable[LinearConstraint | Mapping[str, Any]] = (),
        **options: Any,
    ) -> MixtureSpace:
        """Make the mixtures of a hierarchy: topics, and the sources that each is made of.

        The weights are those of the sources, one flat vector.

        Example:
            >>> web = Topic(["crawl", "forums"], upper=0.8, source_upper={"forums": 0.5})
            >>> space = MixtureSpace.nested(
            ...     {"web": web, "code": ["python", "rust"]},
            ...     prior={"crawl": 6, "forums": 2, "python": 1, "rust": 1},
            ... )
            >>> space.topic_weights(space.prior)
            {'web': 0.8, 'code': 0.2}

        Args:
            topics: Sources of each topic, in order: a list, a `Topic` or a mapping of its fields.
            search: ``"all"``; ``"topics"``: the sources of a topic keep the prior's proportions;
                ``"sources"``: the topics keep the prior's weights.
            prior: Natural weight of each source, as in the class.
            groups: Further groups.
            constraints: Further constraints.
            **options: Other arguments of the class.

        Returns:
            The space.

        Raises:
            ConfigError: If an argument is malformed, or a source is in two topics.
            ConstraintError: If no mixture satisfies all constraints.
        """
        hierarchy = Hierarchy.parse(topics, search)
        sources = hierarchy.sources
        weights = hierarchy.prior(Specification.parse(sources, prior=prior, **options).prior)
        given = Specification.parse(
            sources,
            prior=weights,
            groups=[*hierarchy.groups(weights), *groups],
            constraints=[*hierarchy.constraints(weights), *constraints],
            topics=tuple((name, tuple(topic.sources)) for name, topic in hierarchy.topics.items()),
            **options,
        )
        return _made(given)

    @classmethod
    def phases(
        cls,
        phases: Sequence[Phase | Mapping[str, Any]],
        *,
        tokens: PerName | None = None,
        budget: float | None = None,
        max_epochs: float | Mapping[str, float] | None = None,
        groups: Iterable[Group | Mapping[str, Any]] = (),
        constraints: Iterable[LinearConstraint | Mapping[str, Any]] = (),
        name: str | None = None,
    ) -> MixtureSpace:
        """Make the mixtures of a run in phases, each of which has a mixture of its own.

        The weights are parts of what is searched: those of a phase sum to its share of the phases
        that are not fixed. They are named as the components, ``"<phase>/<component>"`` where two
        phases have one in common. What is given here holds for the whole run, such as the epochs
        of all phases together; what a phase's mixture has holds in it alone.

        Example:
            >>> sets = ["web", "code", "math"]
            >>> space = MixtureSpace.phases(
            ...     [
            ...         Phase("stable", 0.9, MixtureSpace(sets, prior=[8, 1, 1]), fixed=True),
            ...         Phase("decay", 0.1, MixtureSpace(sets, upper={"web": 0.5})),
            ...     ],
            ...     tokens={"math": 4e8},
            ...     budget=1e10,
            ...     max_epochs={"math": 4},
            ... )
            >>> space.by_phase(space.prior)["stable"].round(3).tolist()
            [0.8, 0.1, 0.1]

        Args:
            phases: The phases in the order of the run: `Phase` or mappings of its fields.
            tokens: Tokens in each dataset of any phase.
            budget: Tokens of the whole run.
            max_epochs: How often a dataset may be repeated in the whole run.
            groups: Bounds on sums over the whole run, of data shares or of parts.
            constraints: Such bounds with coefficients.
            name: Prefix of the parameters.

        Returns:
            The space.

        Raises:
            ConfigError: If an argument is malformed, or the phases' shares do not sum to 1.
            ConstraintError: If no run satisfies all constraints.
        """
        run = Run.of(read_phases(phases))
        lower, upper = run.box
        given = Specification.parse(
            run.components,
            prior=run.join(lambda phase: phase.mixture.prior),
            lower=lower,
            upper=upper,
            composition=run.composition,
            datasets=run.datasets,
            tokens=tokens,
            budget=budget,
            max_epochs=max_epochs,
            groups=groups,
            constraints=constraints,
            name=name,
            run=run,
        )
        return _made(given)

    def _take(self, given: Specification, *, is_checked: bool) -> None:
        counts, prefix = given.usage.tokens, "" if given.name is None else f"{given.name}/"
        self.__dict__.update(
            datasets=given.datasets,
            lower=given.lower,
            upper=given.upper,
            composition=given.composition,
            caps=read_only(given.usage.caps),
            tokens=read_only([counts.get(d, np.nan) for d in given.datasets]) if counts else None,
            budget=given.usage.budget,
            groups=given.groups,
            constraints=given.linear,
            topics=dict(given.topics),
            phases_of_run={} if given.run is None else {p.name: p for p in given.run.phases},
            name=given.name,
            param_names=tuple(prefix + component for component in given.components),
            _given=given,
        )
        self._enclose(given, is_checked=is_checked)

    def data_shares(self, w: npt.ArrayLike) -> Array:
        """Return the data shares of merge weights, (D,) or (n, D).

        They are ``w @ composition``; in phases those of the whole run, with what is fixed.

        Raises:
            ConfigError: If ``w`` has the wrong shape.
        """
        given = self._given
        shares: Array = given.searched * (self._points(w, finite=False) @ self.composition)
        shares += given.used
        return shares[0] if np.ndim(w) == 1 else shares

    def topic_weights(self, w: npt.ArrayLike) -> dict[str, float]:
        """Weight of each topic in merge weights (K,), by its name; empty if there are no topics.

        Raises:
            ConfigError: If ``w`` has the wrong shape.
        """
        weights = self._points(w, finite=False)[0]
        return {
            topic: float(weights[np.isin(self.components, sources)].sum())
            for topic, sources in self.topics.items()
        }

    def by_phase(self, w: npt.ArrayLike) -> dict[str, Array]:
        """Each phase's own mixture (K_p,), given weights (K,); empty if there are no phases.

        Raises:
            ConfigError: If ``w`` has the wrong shape.
        """
        run = self._given.run
        return {} if run is None else run.split(self._points(w, finite=False)[0])

    def pin(self, fixed: Mapping[str, float]) -> MixtureSpace:
        """Return this space with some merge weights fixed.

        Args:
            fixed: Component -> weight.

        Raises:
            ConfigError: If a component is unknown or a weight is no number in [0, 1].
            ConstraintError: If no mixture has these weights.
        """
        given = arguments.entries(fixed, self.components, "pin")
        weights = tuple(
            (component, arguments.number(value, f"pin of {component!r}", least=0.0, most=1.0))
            for component, value in given.items()
        )
        return self._pinned(weights) if weights else self

    @functools.cached_property
    def _pinned(self) -> Callable[[tuple[tuple[str, float], ...]], MixtureSpace]:
        return functools.lru_cache(maxsize=_KEPT_PINS)(self._pin)

    def _pin(self, fixed: tuple[tuple[str, float], ...]) -> MixtureSpace:
        lower, upper = pinned(self._given, fixed)
        return _rebuild(replace(self._given, lower=lower, upper=upper))

    @property
    def uniform(self) -> Array:
        """The allowed mixture (K,) that is nearest to equal weights."""
        return self.project(np.full(len(self), 1.0 / len(self)))

    # Identity

    @functools.cached_property
    def _json(self) -> str:
        return json.dumps(_identity.describe(self._given), sort_keys=True)

    def fingerprint(self) -> dict[str, Any]:
        """Describe the space by JSON-able values, rounded to 12 digits; equal if spaces are."""
        description: dict[str, Any] = json.loads(self._json)
        return description

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same mixtures, prior and parameters."""
        if not isinstance(other, MixtureSpace):
            return NotImplemented
        return self._json == other._json

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self._json)

    def __repr__(self) -> str:
        """Show components, prior and the constraints that are more than the simplex."""
        parts = [f"{list(self.components)}"]
        parts.append("prior=[" + ", ".join(f"{p:.3g}" for p in self.prior) + "]")
        parts += dict.fromkeys(c.text for c in self._constraints)
        if self.min_weight > 0:
            parts.append(f"min_weight={self.min_weight:g}")
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        return f"MixtureSpace({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: arrays come back read-only, geometry is found anew."""
        return _rebuild, (self._given,)


def _made(given: Specification, *, is_checked: bool = False) -> MixtureSpace:
    space = object.__new__(MixtureSpace)
    space._take(given, is_checked=is_checked)
    return space


def _rebuild(given: Specification) -> MixtureSpace:
    """Make a space of arguments that are those of another one, or narrower."""
    return _made(given, is_checked=True)
