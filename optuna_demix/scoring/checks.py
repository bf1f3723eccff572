"""Whether benchmarks can be scored, by the tasks' configurations: no data, model or network."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from optuna_demix._wording import did_you_mean
from optuna_demix.errors import TaskError
from optuna_demix.scoring.harness.task_specs import (
    TaskSpec,
    direction_of,
    problem,
    room_problem,
)

if TYPE_CHECKING:
    from optuna_demix.scoring.benchmark import Benchmark
    from optuna_demix.scoring.harness import Catalog
    from optuna_demix.scoring.screening import Screening

IncludePath: TypeAlias = "str | PathLike[str] | Sequence[str | PathLike[str]] | None"
"""Directory or directories of local tasks."""


def check_tasks(
    benchmarks: Sequence[Benchmark],
    *,
    include_path: IncludePath = None,
    confirm_run_unsafe_code: bool = False,
    max_length: int | None = None,
    screening: Screening | None = None,
) -> list[TaskError]:
    """Check benchmarks against the tasks' configurations, without data, model or network.

    Args:
        benchmarks: What is to be scored.
        include_path: Directory or directories of local tasks.
        confirm_run_unsafe_code: Whether tasks may run code which a model wrote.
        max_length: Longest input in tokens, where it is known.
        screening: Benchmarks that are to be screened.

    Returns:
        One error, not raised, for each benchmark that cannot be scored, or, where all can, for
        the first that cannot be screened; empty if there is none. Metrics that a task's own
        functions make up are taken on trust.

    Raises:
        TaskError: If ``include_path`` is no directory or two benchmarks have one name.
    """
    check_names(benchmarks)

    from optuna_demix.scoring.harness import Catalog

    catalog = Catalog(task_folders(include_path))
    problems = []
    specs = {}
    for benchmark in benchmarks:
        found = examine(benchmark, catalog, confirm_run_unsafe_code=confirm_run_unsafe_code)
        if isinstance(found, TaskError):
            problems.append(found)
        elif max_length is not None and (said := room_problem(found, max_length)) is not None:
            problems.append(TaskError(said))
        else:
            specs[benchmark.name] = found
    if screening is not None and not problems:
        try:
            screening.resolve(benchmarks, specs)
        except TaskError as error:
            problems.append(error)
    return problems


def undirected(
    benchmarks: Sequence[Benchmark], *, include_path: IncludePath = None
) -> dict[str, str]:
    """Benchmarks of which no file says whether a higher score is better, without loading any.

    Those of tasks that code of their own makes may say so once they are loaded; all others never
    will, and :func:`check_tasks` refuses them. Either is settled by ``higher_is_better``.

    Args:
        benchmarks: What is to be scored.
        include_path: Directory or directories of local tasks.

    Returns:
        The task and its file by benchmark; tasks that do not exist are left out.

    Raises:
        TaskError: If ``include_path`` is no directory or a task file cannot be read.
    """
    from optuna_demix.scoring.harness import Catalog

    catalog = Catalog(task_folders(include_path))
    specs = {benchmark.name: catalog.spec(benchmark.task) for benchmark in benchmarks}
    return {
        benchmark.name: spec.where
        for benchmark in benchmarks
        if (spec := specs[benchmark.name]) is not None and direction_of(benchmark, spec) is None
    }


def check_names(benchmarks: Sequence[Benchmark]) -> None:
    """Refuse an empty list of benchmarks and two of one name.

    Raises:
        TaskError: If that is so.
    """
    if not benchmarks:
        raise TaskError("no benchmark to score; name at least one")
    seen: set[str] = set()
    for benchmark in benchmarks:
        if benchmark.name in seen:
            raise TaskError(
                f"benchmark {benchmark.name!r} is there twice; give one of them a name"
            )
        seen.add(benchmark.name)


def task_folders(include_path: IncludePath) -> list[Path]:
    """The directories of local tasks."""
    if include_path is None:
        return []
    if isinstance(include_path, str | PathLike):
        include_path = [include_path]
    return [Path(folder).expanduser() for folder in include_path]


def specs_of(
    benchmarks: Sequence[Benchmark], catalog: Catalog, *, confirm_run_unsafe_code: bool
) -> dict[str, TaskSpec]:
    """The spec of each benchmark's task, by the benchmark's name.

    Raises:
        TaskError: If a benchmark cannot be scored.
    """
    specs = {}
    for benchmark in benchmarks:
        found = examine(benchmark, catalog, confirm_run_unsafe_code=confirm_run_unsafe_code)
        if isinstance(found, TaskError):
            raise found
        specs[benchmark.name] = found
    return specs


def examine(
    benchmark: Benchmark, catalog: Catalog, *, confirm_run_unsafe_code: bool
) -> TaskSpec | TaskError:
    """The spec of a benchmark's task, or what is wrong with the benchmark."""
    try:
        spec = catalog.spec(benchmark.task)
    except TaskError as error:
        return error
    if spec is None:
        hint = did_you_mean(benchmark.task, catalog.names, most=3)
        places = ", ".join([*map(str, catalog.folders), "lm-eval's own tasks"])
        return TaskError(
            f"task {benchmark.task!r} does not exist; looked in {places}"
            + (f"; {hint}" if hint else "")
        )
    said = problem(benchmark, spec, confirm_run_unsafe_code=confirm_run_unsafe_code)
    return spec if said is None else TaskError(said)
