"""Benchmarks whose texts only some models are asked for.

The bits per byte of the right answer cost one continuation for each document and order models
much as the answers they write do. So they are scored first, and whoever asks for the scores
decides whether texts are worth their price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optuna_demix._wording import unknown_name
from optuna_demix.errors import TaskError
from optuna_demix.scoring.gold import GOLD_METRIC

if TYPE_CHECKING:
    from optuna_demix.scoring.benchmark import Benchmark
    from optuna_demix.scoring.harness import TaskSpec
    from optuna_demix.scoring.units import UnitKey

_FIELD = "scoring.screen"
_BENCHMARKS, _ANSWERS = f"{_FIELD}.benchmarks", f"{_FIELD}.answers"


@dataclass(frozen=True)
class Screening:
    """Which benchmarks are screened.

    Attributes:
        benchmarks: Their names; ``None`` for all that generate texts.
        answers: By benchmark, the field of its documents that holds the right answer, where the
            task's target is another text.
    """

    benchmarks: tuple[str, ...] | None = None
    answers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def resolve(
        self, benchmarks: Sequence[Benchmark], specs: Mapping[str, TaskSpec]
    ) -> dict[str, str | None]:
        """The field with the right answer of each screened benchmark, ``None`` for the target.

        Args:
            benchmarks: All benchmarks.
            specs: The task of each.

        Raises:
            TaskError: If a benchmark does not exist, generates nothing or has no right answer,
                or none is left.
        """
        known = {b.name: b for b in benchmarks}
        for where, names in (("benchmarks", self.benchmarks or ()), ("answers", self.answers)):
            for name in names:
                if name not in known:
                    raise TaskError(f"{_FIELD}.{where}: {unknown_name(name, known, 'benchmark')}")
        texts = [b for b in benchmarks if b.measure != GOLD_METRIC and _generates(specs[b.name])]
        chosen = [b.name for b in texts] if self.benchmarks is None else list(self.benchmarks)
        if not chosen:
            raise TaskError(f"{_BENCHMARKS}: no benchmark generates texts; remove scoring.screen")
        for name in chosen:
            if known[name] not in texts:
                raise TaskError(
                    f"{_BENCHMARKS}: {name!r} generates no texts that could be spared; leave "
                    "it out"
                )
            self._check(name, specs[name])
        return {name: self.answers.get(name) for name in chosen}

    def _check(self, name: str, spec: TaskSpec) -> None:
        """Refuse a task whose right answers cannot be known."""
        if name in self.answers:
            return
        for leaf in spec.leaves:
            said = None
            if not leaf.config.get("doc_to_target"):
                said = "has no doc_to_target"
            elif leaf.unsafe:
                said = "has tests as its target, not an answer"
            if said is not None:
                raise TaskError(
                    f"{_ANSWERS}: task {leaf.name!r} of benchmark {name!r} {said}; name the "
                    "field of its documents that holds the right answer"
                )


@dataclass(frozen=True)
class CheapScores:
    """What is known of a model before it has written the texts of screened benchmarks.

    Attributes:
        scores: Of all other benchmarks, higher is better.
        cheap: Of the screened ones, minus the bits per byte of their right answers.
    """

    scores: Mapping[str, float]
    cheap: Mapping[str, float]


def answers_of_units(
    answers: Mapping[str, str | None], keys: Mapping[str, UnitKey], benchmarks: Sequence[Benchmark]
) -> dict[UnitKey, str | None]:
    """Screened units with the field of the right answer.

    Args:
        answers: The field of each screened benchmark.
        keys: The unit of each benchmark.
        benchmarks: All benchmarks.

    Raises:
        TaskError: If texts are read by a benchmark that is not screened as well, or are to be
            judged by two different fields.
    """
    found: dict[UnitKey, str | None] = {}
    for name, answer in answers.items():
        if found.setdefault(keys[name], answer) != answer:
            raise TaskError(
                f"{_ANSWERS}: {name!r} shares its texts with another benchmark, which has "
                "another right answer; give both the same"
            )
    for benchmark in benchmarks:
        is_read = keys[benchmark.name] in found and benchmark.measure != GOLD_METRIC
        if is_read and benchmark.name not in answers:
            raise TaskError(
                f"{_BENCHMARKS}: {benchmark.name!r} reads texts of a screened benchmark; name "
                "both or neither"
            )
    return found


def _generates(spec: TaskSpec) -> bool:
    """Whether every task behind a name asks for texts, as far as its configuration tells."""
    return all(leaf.generates and not leaf.has_class for leaf in spec.leaves)
