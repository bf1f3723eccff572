"""Bits per byte of the right answer, for any task that has one.

Accuracy on a few hundred items moves in steps and is noisy; how likely the model finds the right
answer moves with every change of the weights and tells mixtures apart sooner (Heineman et al.,
"Signal and Noise", arXiv 2508.13144). It needs one continuation for each document and no
generation.

The bytes are those of the text whose likelihood is taken, its leading delimiter included. The
score is the ratio of two sums over the documents, as lm-eval's ``bits_per_byte`` is. Where a
document has several right answers, the first counts, as it does in few-shot prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from optuna_demix.errors import TaskError

GOLD_METRIC = "bits_per_byte_gold"
"""Name of the metric; lower is better."""

GOLD_KINDS = ("multiple_choice", "loglikelihood", "generate_until")
"""Output types of tasks that have it."""


def gold_request(
    task: Any, document: Any, instances: Sequence[Any], *, answer: str | None = None
) -> Any:
    """The request for the likelihood of a document's right answer.

    Args:
        task: A loaded task of one of :data:`GOLD_KINDS`.
        document: The document.
        instances: Its requests, in order.
        answer: Field of the document that holds the right answer of a task that generates, where
            its target does not.

    Returns:
        One of ``instances`` where it is there already, else a new one.

    Raises:
        TaskError: If the document has no right answer.
    """
    if task.OUTPUT_TYPE == "loglikelihood":
        return instances[0]
    where = f"task {task.task_name!r}, document {instances[0].doc_id}"
    if task.OUTPUT_TYPE == "multiple_choice":
        target = (
            task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        )
        return instances[_index(target, task.doc_to_choice(document), where)]
    target = task.doc_to_target(document) if answer is None else _field(document, answer, where)
    if answer is None and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(document)
        target = choices[_index(target, choices, where)]
    target = _first(target, where)
    if not str(target).strip():
        raise TaskError(f"{where}: {GOLD_METRIC} needs a right answer, but it is empty")
    context = instances[0].args[0]
    delimiter = " " if task.config.gen_prefix else task.config.target_delimiter
    if not context or context[-1].isspace():
        delimiter = ""
    return replace(
        instances[0],
        request_type="loglikelihood",
        arguments=(context, f"{delimiter}{target}"),
        resps=[],
        filtered_resps={},
        metadata=(instances[0].task_name, instances[0].doc_id, 1),
    )


def gold_value(request: Any) -> tuple[float, int]:
    """Log-likelihood of an answered request's continuation, and its bytes."""
    (likelihood, _), *_ = request.resps
    return likelihood, len(request.args[1].encode("utf-8"))


def _field(document: Any, name: str, where: str) -> Any:
    if name not in document:
        raise TaskError(
            f"{where}: has no field {name!r} with the right answer, only "
            f"{', '.join(map(str, document))}"
        )
    return document[name]


def _index(target: Any, choices: Sequence[Any], where: str) -> int:
    target = _first(target, where)
    if isinstance(target, str) and target in choices:
        return choices.index(target)
    if isinstance(target, int) and 0 <= target < len(choices):
        return target
    raise TaskError(
        f"{where}: {GOLD_METRIC} needs a right answer, but {target!r} is none of the choices"
    )


def _first(target: Any, where: str) -> Any:
    if not isinstance(target, list):
        return target
    if not target:
        raise TaskError(f"{where}: {GOLD_METRIC} needs a right answer, but there is none")
    return target[0]
