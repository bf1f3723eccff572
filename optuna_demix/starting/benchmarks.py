"""Capabilities from the names of lm-eval tasks, and the metric of each that is worth searching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_demix._wording import did_you_mean
from optuna_demix.errors import DemixError, InputError, TaskError

if TYPE_CHECKING:
    from optuna_demix.scoring.harness import Catalog, TaskSpec

GENERAL = "general"
"""The capability of all tasks that no other is known for."""

# The first that fits a word of the task's name or of one of its tags. The paper has the first two
# (arXiv 2602.00747, section 4); the others are as common as to be told apart.
_CAPABILITIES = (
    ("code", r"code|coding|humaneval|mbpp|cruxeval|swe|apps|ds1000|conala|program\w*"),
    ("math", r"math|gsm\w*|mgsm\w*|mathqa|asdiv|svamp|mawps|aime\w*|arithmetic|aqua|algebra"),
    ("long_context", r"longcxt|longbench\w*|ruler|niah|scrolls|infinitebench|longproc|babilong"),
    (
        "multilingual",
        r"multilingual|belebele|xnli\w*|xcopa|xstorycloze|xwinograd|flores|xquad|mlqa|okapi"
        r"|translation|wmt\w*",
    ),
)
# The first that a task has. Where lm-eval's configuration names another metric than its function
# returns, as for HumanEval, the name is that of the function.
_HIGHER = (
    *("acc_norm", "exact_match", "pass@1", "pass_at_1", "acc", "prompt_level_strict_acc"),
    *("f1", "em", "rougeL", "rouge1", "bleu"),
)
_LOWER = ("bits_per_byte", "word_perplexity", "perplexity")
_RETURNED = {"pass_at_k": "pass@1"}
_FILTERS = ("strict-match", "none", "get-answer", "remove_whitespace", "custom-extract")
_MOST_LEAVES = 32  # tasks behind one name that has no score of its own


@dataclass(frozen=True)
class Chosen:
    """One benchmark.

    Attributes:
        task: The task.
        metric: Its metric, with a filter where it has several.
        higher_is_better: Where the task does not say it.
        note: Why it is there, for a comment.
    """

    task: str
    metric: str
    higher_is_better: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Benchmarks:
    """The benchmarks of a study.

    Attributes:
        by_capability: The benchmarks of each capability.
        unsafe: Tasks that run code which the model writes.
        notes: Lines for the user.
    """

    by_capability: Mapping[str, list[Chosen]]
    unsafe: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def capability_of(task: str, tags: Sequence[str] = ()) -> str:
    """What a task measures, by the words of its name, then by its tags."""
    for name in (task, *tags):
        for capability, words in _CAPABILITIES:
            if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", name.lower()):
                return capability
    return GENERAL


def choose_benchmarks(wanted: Sequence[str], include_path: Sequence[Path]) -> Benchmarks:
    """Look tasks up, without loading or downloading any.

    Args:
        wanted: Names of tasks or groups, ``gsm8k``; with a metric, ``gsm8k/exact_match``; with a
            capability, ``reasoning=gsm8k``. Without any, all tasks of the folders.
        include_path: Folders of local tasks.

    Raises:
        TaskError: If there is no such task, or none of its metrics can be searched.
        DemixError: If lm-eval is missing.
    """
    try:
        from optuna_demix.scoring.harness import Catalog

        catalog = Catalog(include_path)
    except ImportError as error:
        raise DemixError(
            f"scoring needs {error.name or 'lm_eval'}; pip install 'optuna-demix[models]'"
        ) from None
    names = list(wanted) or catalog.local_tasks
    if not names:
        places = ", ".join(map(str, include_path))
        raise TaskError(f"--include-path {places}: holds no lm-eval task; add some, or --tasks")
    found: dict[str, list[Chosen]] = {}
    unsafe: list[str] = []
    notes: list[str] = []
    seen: set[tuple[str, str]] = set()
    for name in names:
        capability, task, metric = _parts(name)
        for spec in _scored(task, catalog, notes):
            tags = [tag for leaf in spec.leaves[:1] for tag in _tags(leaf.config.get("tag"))]
            note = "" if spec.name == task else f"of {task}"
            chosen = _choose(spec, metric, note)
            if (chosen.task, chosen.metric) in seen:
                continue
            seen.add((chosen.task, chosen.metric))
            found.setdefault(capability or capability_of(spec.name, tags), []).append(chosen)
            if any(leaf.unsafe for leaf in spec.leaves):
                unsafe.append(spec.name)
    return Benchmarks(_ordered(found), tuple(dict.fromkeys(unsafe)), notes)


def _ordered(found: Mapping[str, list[Chosen]]) -> dict[str, list[Chosen]]:
    """General first, then the known ones, then the user's own."""
    order = [GENERAL, *(capability for capability, _ in _CAPABILITIES)]
    names = [name for name in order if name in found] + [n for n in found if n not in order]
    return {name: found[name] for name in names}


def _parts(wanted: str) -> tuple[str | None, str, str | None]:
    """Capability, task and metric of what the user has typed."""
    capability, given, rest = wanted.partition("=")
    name = rest.strip() if given else wanted.strip()
    if given and not capability.strip() or not name:
        raise InputError(f"--tasks {wanted!r}: write TASK, TASK/METRIC or CAPABILITY=TASK")
    task, _, metric = name.partition("/")  # no task of lm-eval has a slash in its name
    return (capability.strip() if given else None), task, metric or None


def _scored(name: str, catalog: Catalog, notes: list[str]) -> Iterator[TaskSpec]:
    """What has a score of its own behind a name: itself, or the tasks of a tag."""
    spec = catalog.spec(name)
    if spec is None:
        hint = did_you_mean(name, catalog.names, most=3)
        places = ", ".join([*map(str, catalog.folders), "lm-eval's own tasks"])
        raise TaskError(
            f"--tasks: task {name!r} does not exist; looked in {places}"
            + (f"; {hint}" if hint else "")
        )
    if spec.kind == "task" or spec.aggregates:
        yield spec
        return
    leaves = [leaf.name for leaf in spec.leaves if not leaf.multimodal]
    members = [member for leaf in leaves if (member := catalog.spec(leaf)) is not None]
    if not members or len(members) > _MOST_LEAVES:
        raise TaskError(
            f"--tasks: {name!r} has no score of its own and stands for {len(leaves)} tasks; name "
            "those that you mean"
        )
    notes.append(f"{name} stands for {', '.join(member.name for member in members)}")
    yield from members


def _choose(spec: TaskSpec, wanted: str | None, note: str) -> Chosen:
    """The benchmark of a task."""
    from optuna_demix.scoring import Benchmark
    from optuna_demix.scoring.harness.task_specs import direction_of, filters_of, resolve_filter

    known = list(spec.aggregates) if spec.kind == "group" else list(spec.leaves[0].metrics)
    is_open = spec.kind == "task" and spec.leaves[0].open
    offered = [_RETURNED.get(metric, metric) if is_open else metric for metric in known]
    metric = wanted
    if metric is None:
        metric = next((m for m in (*_HIGHER, *_LOWER) if m in offered), None)
        metric = metric or next((m for m in known if _is_directed(spec, m)), None)
    if metric is None:
        raise TaskError(
            f"--tasks: {spec.where}: none of its metrics ({', '.join(known) or 'none named'}) is "
            f"known to init; name one, as {spec.name}/METRIC"
        )
    benchmark = Benchmark(spec.name, metric)
    filters = filters_of(benchmark, spec)
    if benchmark.filter is None and filters and resolve_filter(benchmark, filters) is None:
        chosen = next((name for name in _FILTERS if name in filters), filters[0])
        benchmark = Benchmark(spec.name, f"{metric},{chosen}")
    higher = None
    if direction_of(benchmark, spec) is None and benchmark.measure in _HIGHER:
        higher = True
    return Chosen(spec.name, benchmark.metric, higher, note)


def _is_directed(spec: TaskSpec, metric: str) -> bool:
    from optuna_demix.scoring import Benchmark
    from optuna_demix.scoring.gold import GOLD_METRIC
    from optuna_demix.scoring.harness.task_specs import direction_of

    return metric != GOLD_METRIC and direction_of(Benchmark(spec.name, metric), spec) is not None


def _tags(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(tag) for tag in value] if isinstance(value, list) else []
