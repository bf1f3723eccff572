"""Topics and the sources they are made of, as bounds on sums of the sources' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from optuna_demix.errors import ConfigError
from optuna_demix.mixture import _arguments as arguments
from optuna_demix.mixture.geometry.simplex import Array
from optuna_demix.mixture.sums import Group, LinearConstraint, check_fields

Search = Literal["all", "topics", "sources"]


@dataclass(frozen=True)
class Topic:
    """A topic: sources whose merge weights are bounded together, and within it.

    Attributes:
        sources: Names of the sources, components of the mixture.
        lower: Least weight of the whole topic, in [0, 1].
        upper: Largest weight of the whole topic, in [0, 1].
        source_lower: Least part of the topic that each source is, one number for all or by source.
        source_upper: Largest part of the topic that a source is, likewise.
        prior: Natural weight of the topic, for all topics or for none. Default: the sum of its
            sources' prior.

    Raises:
        ConfigError: If a field cannot be used.
    """

    sources: Sequence[str]
    lower: float = 0.0
    upper: float = 1.0
    source_lower: float | Mapping[str, float] = 0.0
    source_upper: float | Mapping[str, float] = 1.0
    prior: float | None = None

    @classmethod
    def parse(cls, name: str, value: Any) -> Topic:
        """Return the topic itself, or the one of a list of sources, or of a mapping of fields.

        Raises:
            ConfigError: If it is anything else, or a field cannot be used.
        """
        what = f"topic {name!r}"
        if isinstance(value, Mapping):
            check_fields(cls, value, ("sources",), what)
            value = cls(**value)
        elif not isinstance(value, Topic):
            value = cls(sources=value)
        sources = arguments.names_of(value.sources, f"sources of {what}")
        prior = value.prior
        if prior is not None:
            prior = arguments.number(prior, f"prior of {what}", least=0.0)
        for side in ("source_lower", "source_upper"):
            if isinstance(given := getattr(value, side), Mapping):
                arguments.check_known(given, sources, f"{side} of {what}")
        return cls(
            sources, value.lower, value.upper, value.source_lower, value.source_upper, prior
        )


@dataclass(frozen=True)
class Hierarchy:
    """All topics of a mixture.

    Attributes:
        topics: Topics by name.
        search: What is searched: ``"all"`` weights, the weights of ``"topics"`` with their
            sources held at the prior's proportions, or those of ``"sources"`` with their topics
            held at the prior's weights.
    """

    topics: dict[str, Topic]
    search: Search

    @classmethod
    def parse(cls, topics: Mapping[str, Any], search: Search) -> Hierarchy:
        """Read topics by name.

        Raises:
            ConfigError: If they are no mapping, a source is in two of them, or a field is wrong.
        """
        if not isinstance(topics, Mapping) or not topics:
            raise ConfigError(f"a hierarchy maps each topic to its sources, got {topics!r}")
        if search not in get_args(Search):
            raise ConfigError(
                f'search is "all", "topics" or "sources": the level that varies; got {search!r}'
            )
        read = {}
        home: dict[str, str] = {}
        for name, value in topics.items():
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"a topic needs a non-empty name, got {name!r}")
            read[name] = Topic.parse(name, value)
            for source in read[name].sources:
                if source in home:
                    raise ConfigError(
                        f"source {source!r} is in two topics, {home[source]!r} and {name!r}; "
                        "leave it in one"
                    )
                home[source] = name
        given = [name for name, topic in read.items() if topic.prior is not None]
        if given and len(given) < len(read):
            lacking = next(name for name in read if name not in given)
            raise ConfigError(
                f"topic {given[0]!r} has a prior and topic {lacking!r} has none; give all topics "
                "one or none"
            )
        return cls(read, search)

    @property
    def sources(self) -> list[str]:
        """All sources, topic by topic."""
        return [source for topic in self.topics.values() for source in topic.sources]

    def prior(self, masses: Array) -> Array:
        """Natural weights (K,) of the sources, from their masses (K,), topics' priors kept."""
        weights: Array = masses / masses.sum()
        ends = np.cumsum([len(topic.sources) for topic in self.topics.values()])
        for end, topic in zip(ends, self.topics.values(), strict=True):
            if topic.prior is not None:
                part = weights[end - len(topic.sources) : end]
                part[:] = part / part.sum() if part.sum() > 0 else 1.0 / len(part)
                part *= topic.prior
        if not weights.sum() > 0:
            raise ConfigError("the priors of the topics are all 0; give one of them a weight")
        normalized: Array = weights / weights.sum()
        return normalized

    def groups(self, prior: Array) -> list[Group]:
        """Bounds on the weights of whole topics."""
        weight = dict(zip(self.sources, prior.tolist(), strict=True))
        groups = []
        for name, topic in self.topics.items():
            lower, upper = topic.lower, topic.upper
            if self.search == "sources":
                lower = upper = min(1.0, sum(weight[source] for source in topic.sources))
            if lower != 0.0 or upper != 1.0:
                groups.append(Group(name, tuple(topic.sources), lower, upper))
        return groups

    def constraints(self, prior: Array) -> list[LinearConstraint]:
        """Bounds on the parts of a topic that its sources are."""
        weight = dict(zip(self.sources, prior.tolist(), strict=True))
        constraints = []
        for name, topic in self.topics.items():
            total = sum(weight[source] for source in topic.sources)
            what = f"of {name!r}"
            low, high = (
                arguments.bounds_of(getattr(topic, side), topic.sources, f"{side} {what}", default)
                for side, default in (("source_lower", 0.0), ("source_upper", 1.0))
            )
            for i, source in enumerate(topic.sources):
                limits: list[tuple[float, float | None, float | None, str]] = [
                    (float(low[i]), 0.0, None, f"at least {low[i]:g}"),
                    (float(high[i]), None, 0.0, f"at most {high[i]:g}"),
                ]
                if self.search == "topics":
                    kept = weight[source] / total if total > 0 else 1.0 / len(topic.sources)
                    limits = [(kept, 0.0, 0.0, f"the prior's {kept:.4g}")]
                for part, lower, upper, text in limits:
                    if part >= 1.0 or (part <= 0.0 and upper is None):
                        continue  # holds in any mixture
                    coefficients = {each: (each == source) - part for each in topic.sources}
                    title = f"{source} is {text} of {name}"
                    constraints.append(LinearConstraint(coefficients, lower, upper, name=title))
        return constraints
