"""``TaskSpec``: what a task's configuration says, and whether a benchmark fits it.

Nothing is loaded, so that a study is checked without data; lm-eval is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna_demix.scoring.benchmark import Benchmark
from optuna_demix.scoring.gold import GOLD_KINDS, GOLD_METRIC
from optuna_demix.scoring.harness.data_files import missing_data

_MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What lm-eval reads the longest answer from, in its order."""

NO_FILTER = "none"
"""lm-eval's name for answers as they are."""


@dataclass(frozen=True)
class Leaf:
    """One task, by its configuration.

    Attributes:
        name: The task.
        config: The YAML file's content with the overrides of its groups; functions are text.
        path: The YAML file; ``None`` for a task written inside a group.
        metrics: Direction of every metric that the configuration names: higher is better, lower
            is, or unknown.
        open: Whether the task may give metrics that its configuration does not name, because a
            function makes them.
    """

    name: str
    config: Mapping[str, Any]
    path: Path | None
    metrics: Mapping[str, bool | None]
    open: bool

    @property
    def filters(self) -> list[str]:
        """Names of the filters that the answers go through."""
        return [f["name"] for f in self.config.get("filter_list") or [{"name": NO_FILTER}]]

    @property
    def has_class(self) -> bool:
        """Whether code of its own makes the task, which says more once it is loaded."""
        return "class" in self.config

    @property
    def generates(self) -> bool:
        """Whether the model is asked for texts."""
        return self.has_class or self.config.get("output_type") in (None, "generate_until")

    @property
    def unsafe(self) -> bool:
        """Whether scoring runs code that a model wrote."""
        return bool(self.config.get("unsafe_code", False))

    @property
    def multimodal(self) -> bool:
        """Whether a prompt holds images or sound."""
        return any(self.config.get(key) for key in ("doc_to_image", "doc_to_audio"))


@dataclass(frozen=True)
class TaskSpec:
    """One name of lm-eval's index.

    Attributes:
        name: The name.
        kind: What it names.
        path: The YAML file, if there is one.
        leaves: The tasks behind it, in lm-eval's order; a task has itself.
        aggregates: Of a group: filters by aggregated metric, ``None`` for all filters.
    """

    name: str
    kind: Literal["task", "group", "tag"]
    path: Path | None
    leaves: tuple[Leaf, ...]
    aggregates: Mapping[str, Sequence[str] | None]

    @property
    def where(self) -> str:
        """How an error names it: the file if there is one."""
        return f"task {self.name!r}" + (f" ({self.path})" if self.path else "")


def configured_metrics(
    config: Mapping[str, Any],
    *,
    defaults: Mapping[str, Sequence[str]],
    direction: Callable[[str], bool | None],
) -> tuple[dict[str, bool | None], bool]:
    """Metrics that a task's configuration names.

    Args:
        config: The configuration, functions as text.
        defaults: Metrics of each output type where the configuration names none.
        direction: Whether higher is better, by lm-eval's registry.

    Returns:
        The directions by metric, and whether there may be other metrics.
    """
    is_open = "class" in config or bool(config.get("process_results"))
    listed = config.get("metric_list")
    kind = config.get("output_type", "generate_until")
    gold = {GOLD_METRIC: False} if "class" not in config and kind in GOLD_KINDS else {}
    if listed is None:
        names = () if "class" in config else defaults[kind]
        return {**{name: direction(name) for name in names}, **gold}, is_open
    metrics: dict[str, bool | None] = {**gold}
    for entry in listed:
        name = str(entry["metric"])
        if os.sep in name:  # a function: its name is the metric's, but it may return several
            name, is_open = name.rpartition(".")[2], True
        stated = entry.get("higher_is_better")
        metrics[name] = direction(name) if stated is None else bool(stated)
    return metrics, is_open


def problem(benchmark: Benchmark, spec: TaskSpec, *, confirm_run_unsafe_code: bool) -> str | None:
    """Why a benchmark cannot be scored, or ``None``."""
    checks: Iterable[Callable[[], str | None]] = (
        lambda: _kind_problem(benchmark, spec),
        lambda: _unsafe_problem(spec, allowed=confirm_run_unsafe_code),
        lambda: _data_problem(spec),
        lambda: _fewshot_problem(benchmark, spec),
        lambda: _generation_problem(benchmark, spec),
        lambda: _metric_problem(benchmark, spec),
        lambda: _direction_problem(benchmark, spec),
    )
    return next((found for check in checks if (found := check()) is not None), None)


def room_problem(spec: TaskSpec, max_length: int) -> str | None:
    """Why no prompt fits into the model beside what the task generates, or ``None``."""
    for leaf in spec.leaves:
        if leaf.config.get("output_type", "generate_until") != "generate_until":
            continue
        given = leaf.config.get("generation_kwargs") or {}
        wanted = next((given[key] for key in _MAX_TOKENS if given.get(key) is not None), None)
        if isinstance(wanted, int) and wanted >= max_length:
            return (
                f"task {leaf.name!r}: generates up to {wanted} tokens, which leaves no room for "
                f"a prompt in max_length {max_length}; raise max_length or lower max_gen_toks in "
                "the task's generation_kwargs"
            )
    return None


def resolve_filter(benchmark: Benchmark, filters: Sequence[str]) -> str | None:
    """The one filter a benchmark means, or ``None`` if it names none of several or a wrong one."""
    if benchmark.measure == GOLD_METRIC:  # is taken of no answer that could be filtered
        filters = [NO_FILTER]
    if benchmark.filter is not None:
        return benchmark.filter if benchmark.filter in filters else None
    return filters[0] if len(filters) == 1 else None


def filters_of(benchmark: Benchmark, spec: TaskSpec) -> list[str]:
    """Filters a benchmark can choose from, by the configuration."""
    named = spec.aggregates.get(benchmark.measure) if spec.kind == "group" else None
    every = [name for leaf in spec.leaves for name in leaf.filters]
    return list(dict.fromkeys(named if named is not None else every))


def direction_of(benchmark: Benchmark, spec: TaskSpec) -> bool | None:
    """Whether higher is better, by the benchmark, else by every task behind the name."""
    if benchmark.higher_is_better is not None:
        return benchmark.higher_is_better
    known = {
        leaf.metrics[benchmark.measure]
        for leaf in spec.leaves
        if benchmark.measure in leaf.metrics
    }
    return known.pop() if len(known) == 1 else None


def _kind_problem(benchmark: Benchmark, spec: TaskSpec) -> str | None:
    if spec.kind == "tag":
        names = ", ".join(leaf.name for leaf in spec.leaves)
        return f"{spec.where}: is a tag, which has no score of its own; name its tasks ({names})"
    if spec.kind == "group" and not spec.aggregates:
        names = ", ".join(leaf.name for leaf in spec.leaves)
        return f"{spec.where}: is a group without aggregate_metric_list; name its tasks ({names})"
    seen = [leaf.name for leaf in spec.leaves if leaf.multimodal]
    if seen:
        return f"{spec.where}: {seen[0]!r} has images or sound, which a text model cannot be given"
    return None


def _unsafe_problem(spec: TaskSpec, *, allowed: bool) -> str | None:
    unsafe = [leaf.name for leaf in spec.leaves if leaf.unsafe]
    if allowed or not unsafe:
        return None
    return (
        f"{spec.where}: {unsafe[0]!r} is marked unsafe: it runs code that the model writes; if "
        "you mean it, set confirm_run_unsafe_code to true, and it runs in a sandbox"
    )


def _data_problem(spec: TaskSpec) -> str | None:
    for leaf in spec.leaves:
        for path in missing_data(leaf.config):
            return (
                f"{leaf.path or spec.path}: task {leaf.name!r}: data file {path} does not exist "
                "(a relative path starts at the folder of the task's YAML file)"
            )
    return None


def _fewshot_problem(benchmark: Benchmark, spec: TaskSpec) -> str | None:
    if (
        spec.kind == "task"
        and benchmark.num_fewshot
        and spec.leaves[0].config.get("num_fewshot") == 0
    ):
        return (
            f"benchmark {benchmark.name!r}: num_fewshot is {benchmark.num_fewshot}, but "
            f"{spec.where} fixes it to 0 and lm-eval would not change that; remove num_fewshot"
        )
    return None


def _generation_problem(benchmark: Benchmark, spec: TaskSpec) -> str | None:
    if any(leaf.generates for leaf in spec.leaves):
        return None
    for name in ("gen_kwargs", "think_end_token", "repeats"):
        if getattr(benchmark, name):
            return (
                f"benchmark {benchmark.name!r}: {name} is about generated texts, but {spec.where} "
                "asks for none; remove it"
            )
    return None


def _metric_problem(benchmark: Benchmark, spec: TaskSpec) -> str | None:
    if spec.kind == "group":
        known: Sequence[str] = list(spec.aggregates)
        is_open = False
    else:
        known = list(spec.leaves[0].metrics)
        is_open = spec.leaves[0].open
    if benchmark.measure not in known and not is_open:
        return (
            f"{spec.where}: has no metric {benchmark.measure!r}, only {', '.join(known) or 'none'}"
        )
    filters = filters_of(benchmark, spec)
    if resolve_filter(benchmark, filters) is None and (filters or spec.kind == "task"):
        said = f"no filter {benchmark.filter!r}" if benchmark.filter else "several filters"
        choices = " or ".join(repr(f"{benchmark.measure},{name}") for name in filters)
        return f"{spec.where}: metric {benchmark.measure!r} has {said}; write {choices}"
    return None


def _direction_problem(benchmark: Benchmark, spec: TaskSpec) -> str | None:
    if direction_of(benchmark, spec) is None and not any(leaf.has_class for leaf in spec.leaves):
        return (
            f"{spec.where}: does not say whether a higher {benchmark.measure!r} is better; "
            f"give benchmark {benchmark.name!r} higher_is_better"
        )
    return None
