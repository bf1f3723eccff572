"""A study as it will be written: plain data, from which text is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna_demix.starting.benchmarks import Chosen

GENERAL_SHARE = 0.5
"""Share of general data in each component: the best of those that the paper tried."""


@dataclass(frozen=True)
class Entry:
    """A field of the file with a comment.

    Attributes:
        value: What the field holds; a mapping is written in one line.
        note: The comment.
    """

    value: Any
    note: str = ""


@dataclass(frozen=True)
class Draft:
    """What ``init`` writes.

    Attributes:
        run_dir: Where everything the study makes is kept.
        base: Directory of the base, if there is one.
        datasets: Fields of each dataset.
        components: Fields of each component.
        general: The general dataset, where components have a share of it.
        mixture: Limits of the mixture.
        capabilities: Benchmarks by capability.
        scoring: How lm-eval is run.
        config_of: The component that others follow, where they end texts differently.
        training: How the models are trained, if they are.
        notes: Lines for the user: what was found, guessed and left out.
    """

    run_dir: str
    base: str | None
    datasets: Mapping[str, Entry]
    components: Mapping[str, Entry]
    general: str | None
    mixture: Mapping[str, Entry]
    capabilities: Mapping[str, list[Chosen]]
    scoring: Mapping[str, Entry]
    config_of: str | None = None
    training: Mapping[str, Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
