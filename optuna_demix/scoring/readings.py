"""What benchmarks read of a suite: their scores, oriented so that higher is better."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from optuna_demix.errors import TaskError
from optuna_demix.scoring.harness.task_specs import (
    NO_FILTER,
    TaskSpec,
    direction_of,
    filters_of,
    resolve_filter,
)

if TYPE_CHECKING:
    from optuna_demix.scoring.benchmark import Benchmark
    from optuna_demix.scoring.items import ItemTable
    from optuna_demix.scoring.prepared_task import Blocks
    from optuna_demix.scoring.suite import Suite
    from optuna_demix.scoring.units import UnitKey

Address: TypeAlias = "tuple[UnitKey, str, str]"
"""Unit, metric and filter of a benchmark."""


def addresses_of(
    benchmarks: Sequence[Benchmark], keys: Mapping[str, UnitKey], specs: Mapping[str, TaskSpec]
) -> dict[str, Address]:
    """Where each benchmark is read."""
    return {
        b.name: (
            keys[b.name],
            b.measure,
            resolve_filter(b, filters_of(b, specs[b.name])) or NO_FILTER,
        )
        for b in benchmarks
    }


class Readings:
    """The scores of benchmarks.

    Args:
        suite: What was scored.
        benchmarks: The benchmarks.
        addresses: Where each is read.
        specs: The task of each.

    Attributes:
        higher: Whether a higher metric is better, by benchmark.
        signs: 1, or -1 where less is better, by benchmark.

    Raises:
        TaskError: If a task does not say whether a higher metric is better.
    """

    def __init__(
        self,
        suite: Suite,
        benchmarks: Sequence[Benchmark],
        addresses: Mapping[str, Address],
        specs: Mapping[str, TaskSpec],
    ) -> None:
        self.suite, self.addresses = suite, addresses
        self.higher = {b.name: self._direction(b, specs[b.name]) for b in benchmarks}
        self.signs = {name: 1 if higher else -1 for name, higher in self.higher.items()}

    def scores(self, blocks: Blocks = None, *, without: Collection[str] = ()) -> dict[str, float]:
        """Scores on some blocks; NaN where the model answers so or the metric is not finite."""
        scores = {}
        for name, (key, metric, filter_name) in self.addresses.items():
            if name not in without:
                value = self.suite.unit(key).value(metric, filter_name, blocks=blocks)
                scores[name] = self.signs[name] * value if math.isfinite(value) else math.nan
        return scores

    def tables(self) -> dict[str, ItemTable]:
        """The documents behind each score, where they have values of their own."""
        found = {
            name: self.suite.unit(at[0]).table(*at[1:]) for name, at in self.addresses.items()
        }
        return {name: table for name, table in found.items() if table is not None}

    def errors(self) -> dict[str, float]:
        """Standard error of each score; NaN where there is none."""
        return {
            name: self.suite.unit(key).error(metric, filter_name)
            for name, (key, metric, filter_name) in self.addresses.items()
        }

    def _direction(self, benchmark: Benchmark, spec: TaskSpec) -> bool:
        stated = direction_of(benchmark, spec)
        if stated is not None:
            return stated
        key, _, _ = self.addresses[benchmark.name]
        found = self.suite.unit(key).directions(benchmark.measure)
        if len(found) != 1:
            raise TaskError(
                f"{spec.where}: does not say whether a higher {benchmark.measure!r} is better; "
                f"give benchmark {benchmark.name!r} higher_is_better"
            )
        return found.pop()
