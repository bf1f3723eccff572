"""The steps of lm-eval's ``simple_evaluate`` on a loaded task, one function each.

:class:`~optuna_demix.scoring.suite.Suite` puts them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any

import lm_eval
from lm_eval.api.metrics import mean
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.models.utils import normalize_gen_kwargs

from optuna_demix.errors import TaskError
from optuna_demix.scoring.gold import GOLD_METRIC
from optuna_demix.scoring.harness.quiet import quiet
from optuna_demix.scoring.harness.reasons import reason

if TYPE_CHECKING:
    from optuna_demix.scoring.settings import TaskSettings

LM_EVAL_VERSION: str = lm_eval.__version__
STARTING_SEEDS = (DEFAULT_RANDOM_SEED, DEFAULT_OTHER_SEED, DEFAULT_OTHER_SEED)
"""Seeds of Python, numpy and torch that ``simple_evaluate`` starts with."""

_PLACES = frozenset(
    {"config_source", "data_dir", "data_files", "model", "pretrained", "tokenizer"}
)
"""Arguments and metadata of tasks that are paths, which differ between hosts."""

_SEEN = frozenset(
    {
        "custom_dataset",
        "dataset_kwargs",
        "dataset_name",
        "dataset_path",
        "description",
        "doc_to_decontamination_query",
        "fewshot_config",
        "fewshot_split",
        "process_docs",
        "should_decontaminate",
        "tag",
        "task_alias",
        "test_split",
        "training_split",
        "validation_split",
    }
)
"""Fields of a task that leave their mark on its documents and requests, or on nothing."""

_REQUEST_KINDS = frozenset({"loglikelihood", "loglikelihood_rolling", "generate_until"})


def configure(task: Any, settings: TaskSettings, *, seed: int) -> None:
    """Set what ``simple_evaluate`` sets on a loaded task.

    Args:
        task: The task.
        settings: Its few-shot examples and arguments of generation.
        seed: Of the few-shot examples.
    """
    if settings.gen_kwargs and task.get_config("output_type") == "generate_until":
        own = task.get_config("generation_kwargs") or {}
        task.set_config(key="generation_kwargs", value={**own, **settings.gen_kwargs})
    stated, wanted = task.get_config("num_fewshot"), settings.num_fewshot
    if stated is None or (wanted is not None and stated != 0):  # a stated 0 is left alone
        task.set_config(key="num_fewshot", value=wanted or 0)
    task.set_fewshot_seed(seed=seed)


def repeat_answers(task: Any, repeats: int | None, ks: Collection[int], *, where: str) -> None:
    """Set how many answers each document of a task gets, and which ``pass@k`` it gives.

    Args:
        task: A loaded and configured task.
        repeats: Number of answers; ``None`` for the task's own, and for tasks without texts.
        ks: Of the ``pass@k`` that are read; those of the task stay.
        where: What an error says the task is.

    Raises:
        TaskError: If the answers would all be the same, only the first of them would count, or
            they are too few for a ``pass@k``.
    """
    if task.get_config("output_type") != "generate_until":
        return
    if repeats is not None:
        task.set_config(key="repeats", value=repeats)
        if repeats > 1:
            _check_repeats(task, repeats, where)
    takers = [k for k in getattr(task, "_metric_fn_kwargs", {}).values() if "k" in k]
    given = task.get_config("repeats") or 1
    if takers and max(ks, default=0) > given:
        raise TaskError(
            f"{where}: pass@{max(ks)} needs as many answers to each question, but there "
            f"{'is' if given == 1 else 'are'} {given}; set repeats to {max(ks)} or more"
        )
    for kwargs in takers:
        own = kwargs["k"] if isinstance(kwargs["k"], list) else [kwargs["k"]]
        kwargs["k"] = sorted({*own, *ks})


def _check_repeats(task: Any, repeats: int, where: str) -> None:
    if not normalize_gen_kwargs(task.get_config("generation_kwargs") or {})["do_sample"]:
        raise TaskError(
            f"{where}: repeats is {repeats}, but its texts are greedy and all the same; set "
            "do_sample and temperature in gen_kwargs, or remove repeats"
        )
    filters = task.get_config("filter_list") or [{"filter": [{"function": "take_first"}]}]
    if all(_takes_first([f["function"] for f in each["filter"]]) for each in filters):
        raise TaskError(
            f"{where}: repeats is {repeats}, but its filters take the first answer only; remove "
            "repeats, or give the task a filter that keeps them (take_first_k, majority_vote)"
        )


def _takes_first(functions: Sequence[str]) -> bool:
    """Whether a filter drops all but the first answer, as far as names tell."""
    if "take_first" not in functions:
        return False
    before = functions[: functions.index("take_first")]
    return not {"majority_vote", "custom"} & set(before)


def is_sampled(instance: Any) -> bool:
    """Whether a request is for a text that is sampled."""
    if instance.request_type != "generate_until":
        return False
    return bool(normalize_gen_kwargs(instance.args[1])["do_sample"])


def build_requests(
    task: Any, settings: TaskSettings, *, chat: Callable[..., str] | None, where: str
) -> None:
    """Fill ``task.instances``, then keep the templates of each document as rendered.

    Args:
        task: A loaded and configured task.
        settings: Its documents and prompts.
        chat: Makes a prompt of a chat's messages, where prompts are chats.
        where: What an error says the task is.

    Raises:
        TaskError: If lm-eval cannot build them or this package cannot answer them.
    """
    metrics = getattr(task, "_metric_fn_list", {})
    if task.get_config("process_results") is None and None in metrics.values():
        names = ", ".join(name for name, function in metrics.items() if function is None)
        raise TaskError(
            f"{where}: metric {names} is not lm-eval's own and could not be downloaded"
        )
    try:
        with quiet():
            task.build_all_requests(
                limit=get_sample_size(task, settings.limit),
                system_instruction=settings.system_instruction,
                apply_chat_template=chat is not None,
                fewshot_as_multiturn=bool(settings.fewshot_as_multiturn),
                chat_template=chat,
            )
    except Exception as error:
        raise TaskError(f"{where}: its requests cannot be built: {reason(error)}") from error
    kinds = {instance.request_type for instance in task.instances}
    if not kinds <= _REQUEST_KINDS:
        names = ", ".join(sorted(kinds - _REQUEST_KINDS))
        raise TaskError(f"{where}: requests of type {names} are not supported")
    if isinstance(task, ConfigurableTask):
        documents = [instance.doc for instance in task.instances]
        for method in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            setattr(task, method, _remembered(getattr(task, method), documents))


def apply_filters(task: Any, instances: list[Any]) -> None:
    """Filter the answers of some of a task's requests, as the task does with all of them."""
    for ensemble in task._filters:
        ensemble.apply(instances)


def has_own_metrics(task: Any) -> bool:
    """Whether the task's author, not lm-eval, turns answers into metrics."""
    own = type(task).process_results is not ConfigurableTask.process_results
    return own or callable(task.get_config("process_results"))


def aggregation(task: Any, metric: str) -> tuple[Callable[[list[Any]], float], str | None]:
    """A metric's aggregation over documents and lm-eval's name of it.

    It is the mean where the task has none, and has no name where it is the task's own.
    """
    if metric == GOLD_METRIC:
        return AGGREGATION_REGISTRY["bits_per_byte"], "bits_per_byte"
    function = task.aggregation().get(metric, mean)
    names = (name for name, known in AGGREGATION_REGISTRY.items() if known is function)
    return function, next(names, None)


def settings(task: Any) -> dict[str, Any]:
    """What a task's scores depend on beside its documents and requests, to be hashed.

    Where the data lie, what they are called and how they are processed is seen in the documents,
    few-shot examples and descriptions in the requests. Only code of a task's own class may read
    more than that.
    """
    config = task.config
    result = {f.name: getattr(config, f.name) for f in dataclass_fields(config)}
    metadata = result["metadata"]
    if isinstance(metadata, Mapping):
        result["metadata"] = {k: v for k, v in metadata.items() if k not in _PLACES}
    if type(task) is ConfigurableTask:
        return {name: value for name, value in result.items() if name not in _SEEN}
    kwargs = result.pop("dataset_kwargs", None)
    result.pop("dataset_path", None)
    kept = {k: v for k, v in (kwargs or {}).items() if k not in _PLACES}
    return {**result, "dataset_kwargs": kept, "class": type(task)}


def _remembered(method: Callable[..., Any], documents: Iterable[Any]) -> Callable[..., Any]:
    """A template rendered once per document: lm-eval compiles and renders it each time.

    It is remembered of ``documents`` alone. Any other object, such as the copy that a task's own
    metrics are given, may leave its identity to the next one and is rendered each time.
    """
    kept = {id(document): document for document in documents}  # alive, as their identities are
    rendered: dict[int, Any] = {}

    def lookup(document: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or id(document) not in kept:
            return method(document, *args, **kwargs)
        if id(document) not in rendered:
            rendered[id(document)] = method(document)
        return rendered[id(document)]

    return lookup
