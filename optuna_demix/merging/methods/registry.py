"""The merge methods by name: a new one is a function here and a line in each of two tables.

Names, parameters and results are mergekit's (github.com/arcee-ai/mergekit, release 0.1.5), with
what does not depend on the merge weights done once, at arena build. Random masks are drawn once as
well, so that two proxies differ by their weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from optuna_demix._typing import FloatArray
from optuna_demix.errors import ComponentError, ConfigError
from optuna_demix.merging.methods.parameters import check_deltas, resolve
from optuna_demix.merging.methods.plan import MergePlan
from optuna_demix.merging.methods.preparation import Preparation
from optuna_demix.merging.methods.sparsify import Sparsity
from optuna_demix.merging.methods.spherical import karcher, multislerp
from optuna_demix.merging.methods.task_vectors import elected_task_vectors, task_vectors

if TYPE_CHECKING:
    from optuna_demix.merging.methods.parameters import Number

Planner: TypeAlias = Callable[[FloatArray, FloatArray, Sequence[str]], MergePlan]


@dataclass(frozen=True)
class MergeMethod:
    """How components and merge weights make a proxy.

    Attributes:
        name: Its name.
        parameters: All its parameters, by name.
        preparation: What is done to the components at arena build.
        plan: Returns what the kernels need, of merge weights (K,), facts by tensor (T, F) and
            the tensors' names (T,).
    """

    name: str
    parameters: Mapping[str, Any]
    preparation: Preparation
    plan: Planner


def _linear(values: Mapping[str, Any]) -> tuple[Preparation, Planner]:
    return Preparation(), lambda w, facts, tensors: MergePlan(w)


def _linear_of_deltas(deltas: Literal["int8", "float8"]) -> tuple[Preparation, Planner]:
    """Linear on differences: the base, as the last row, counts with the sum of the weights."""
    return Preparation(base=True, deltas=deltas), lambda w, facts, tensors: MergePlan(
        np.append(w, w.sum())
    )


def _task_arithmetic(values: Mapping[str, Any]) -> tuple[Preparation, Planner]:
    options = {"lambda_": values["lambda"], "normalize": values["normalize"]}
    return Preparation(base=True), lambda w, facts, tensors: task_vectors(w, None, **options)


def _sparse(values: Mapping[str, Any], rule: str, *, elects: bool) -> tuple[Preparation, Planner]:
    """A method that merges some elements of each task vector."""
    optional = {name: values[name] for name in ("gamma", "epsilon", "seed") if name in values}
    sparsity = Sparsity(rule, values["density"], **optional)  # type: ignore[arg-type]
    rescale = values["rescale"] and values["density"] < 1.0
    preparation = Preparation(
        base=True,
        sparsity=sparsity if values["density"] < 1.0 else None,
        facts="scales" if rescale else None,
    )
    planned = elected_task_vectors if elects else task_vectors
    options = {"lambda_": values["lambda"], "normalize": values["normalize"]}

    def plan(w: FloatArray, facts: FloatArray, tensors: Sequence[str]) -> MergePlan:
        return planned(w, facts if rescale else None, **options)

    return preparation, plan


def _multislerp(values: Mapping[str, Any]) -> tuple[Preparation, Planner]:
    use_base = values["use_base"]

    def plan(w: FloatArray, facts: FloatArray, tensors: Sequence[str]) -> MergePlan:
        return multislerp(w, _grams(w, facts), tensors, use_base=use_base)

    return Preparation(base=use_base, facts="gram"), plan


def _karcher(values: Mapping[str, Any]) -> tuple[Preparation, Planner]:
    options = {"max_iter": values["max_iter"], "tol": values["tol"]}
    return Preparation(facts="gram"), lambda w, facts, tensors: karcher(
        w, _grams(w, facts), **options
    )


def _grams(w: FloatArray, facts: FloatArray) -> FloatArray:
    return facts.reshape(-1, len(w), len(w))


METHODS: dict[str, Callable[[Mapping[str, Any]], tuple[Preparation, Planner]]] = {
    "linear": _linear,
    "task_arithmetic": _task_arithmetic,
    "ties": lambda values: _sparse(values, "magnitude", elects=True),
    "dare_linear": lambda values: _sparse(values, "random", elects=False),
    "dare_ties": lambda values: _sparse(values, "random", elects=True),
    "breadcrumbs": lambda values: _sparse(values, "outliers", elects=False),
    "della": lambda values: _sparse(values, "magprune", elects=True),
    "multislerp": _multislerp,
    "karcher": _karcher,
}


def find_method(
    name: str,
    parameters: Mapping[str, Number] | None = None,
    *,
    delta_dtype: Literal["int8", "float8"] | None = None,
) -> MergeMethod:
    """Return a merge method by name.

    Args:
        name: One of `METHODS`.
        parameters: Its parameters by name, as in mergekit; those left out have its defaults.
        delta_dtype: Keep components as differences from the base, of this element type; for
            ``linear`` only. Default: as they are.

    Raises:
        ComponentError: If the method or a parameter is unknown, missing or out of range, or the
            method cannot work on differences.
    """
    try:
        values = resolve(name, parameters or {})
        check_deltas(name, delta_dtype)
    except ConfigError as error:
        raise ComponentError(str(error)) from None
    preparation, plan = (
        METHODS[name](values) if delta_dtype is None else _linear_of_deltas(delta_dtype)
    )
    return MergeMethod(name, values, preparation, plan)
