"""Metrics of tasks that run code which a model wrote, called in the sandbox instead of here."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask

from optuna_demix.errors import TaskError
from optuna_demix.scoring.sandbox import CallError, Sandbox
from optuna_demix.scoring.sandbox.code_eval import CodeEval, running_nothing
from optuna_demix.scoring.sandbox.server import CODE_EVAL

_WAY_OUT = "set confirm_run_unsafe_code_unsandboxed to true if it may do all that the worker may"


@dataclass(frozen=True)
class _Place:
    """Where the sandbox finds a function.

    Attributes:
        file: The file of its module; empty for one of the sandbox's own.
        module: How the module is called.
        name: The function.
    """

    file: str
    module: str
    name: str


class Confined:
    """A function of a task that the sandbox calls.

    Args:
        sandbox: The sandbox.
        place: Where it finds the function.
    """

    def __init__(self, sandbox: Sandbox, place: _Place) -> None:
        self._sandbox, self._place = sandbox, place

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it.

        Raises:
            LostError: If it does not answer.
            CallError: If it raises; a ``TypeError`` as that, because lm-eval then tries again.
            TaskError: If an argument cannot be sent, or there is no sandbox any more.
        """
        place = self._place
        try:
            return self._sandbox.call(place.file, place.module, place.name, args, kwargs)
        except CallError as error:
            if error.kind == "TypeError":
                raise TypeError(str(error)) from None
            raise


def runs_code(task: Any) -> bool:
    """Whether scoring a loaded task runs code that a model wrote, as it says."""
    return bool(getattr(task, "UNSAFE_CODE", False))


def confine(tasks: Sequence[tuple[Any, str]]) -> Sandbox | None:
    """Let the sandbox call the metrics and aggregations that tasks' authors wrote, and start it.

    What lm-eval itself computes of texts stays here, as do filters, which only cut them.

    Args:
        tasks: Loaded tasks, and what an error says that they are.

    Returns:
        The sandbox, if there is anything to be called in it.

    Raises:
        TaskError: If a function cannot be called from elsewhere, or there is no sandbox.
    """
    places = [_places(task, where) for task, where in tasks]
    if not any(places):
        return None
    files = {place.file for found in places for place in found.values() if place.file}
    sandbox = Sandbox(sorted({str(Path(file).parent) for file in files}))
    try:
        sandbox.start()
    except TaskError as error:
        raise TaskError(f"{tasks[0][1]}: {error}") from None
    for (task, _), found in zip(tasks, places, strict=True):
        for (kind, name), place in found.items():
            function = Confined(sandbox, place)
            if kind == "process_results":
                task.process_results = function
            else:
                getattr(task, kind)[name] = function
    return sandbox


@contextmanager
def code_eval_stands_in() -> Iterator[None]:
    """Give ``evaluate.load("code_eval")`` inside to modules of tasks, without the network.

    They try it at once, which runs nothing; afterwards only the sandbox may use it.
    """
    import evaluate  # type: ignore[import-untyped]

    metric = CodeEval(running_nothing)
    usual = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return metric if path == "code_eval" else usual(path, *args, **kwargs)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = usual
        metric.run = _refuse


def _refuse(programs: list[str], seconds: float) -> list[str]:
    raise RuntimeError(
        "programs that a model wrote are run by the sandbox alone; mark the task unsafe_code: true"
    )


def _places(task: Any, where: str) -> dict[tuple[str, str], _Place]:
    """The functions of a task that may run code, by where lm-eval keeps them."""
    if type(task) is not ConfigurableTask:
        raise TaskError(
            f"{where}: is made by a class of its own, whose metrics cannot be put into the "
            f"sandbox; {_WAY_OUT}"
        )
    found = {}
    if callable(task.config.process_results):
        found["process_results", ""] = _place(task.config.process_results, where)
    for name, function in task._metric_fn_list.items():
        own = getattr(function, "__self__", None)
        if isinstance(own, CodeEval):
            found["_metric_fn_list", name] = _Place("", "", CODE_EVAL)
        elif inspect.isfunction(own):  # lm-eval keeps ``function.__call__``
            found["_metric_fn_list", name] = _place(own, where)
        elif own is not None:  # of ``evaluate``, downloaded
            raise TaskError(
                f"{where}: metric {name!r} comes from the Hub and cannot be put into the sandbox; "
                f"{_WAY_OUT}"
            )
    for listed in task.config.metric_list or ():
        metric, function = listed["metric"], listed.get("aggregation")
        if callable(function):
            name = metric.__name__ if callable(metric) else metric
            found["_aggregation_list", name] = _place(function, where)
    return found


def _place(function: Callable[..., Any], where: str) -> _Place:
    name = getattr(function, "__name__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    if module is None or file is None or getattr(module, name, None) is not function:
        raise TaskError(
            f"{where}: {name or function!r} is not a function of a module, so that it cannot be "
            f"called in the sandbox; {_WAY_OUT}"
        )
    return _Place(str(Path(file).resolve()), module.__name__, name)
