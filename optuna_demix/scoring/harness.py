"""The one place that knows lm-eval: its index of tasks, its prompts, its metrics.

Written against lm-eval 0.4.13; no other file of this package imports it.

* :class:`Catalogue` finds tasks by name, reads what their configuration says, and loads them;
* :class:`PreparedModel` is lm-eval's own ``HFLM`` over a live model, whose requests are tokenised
  and laid out in batches once;
* the functions on loaded tasks at the end are the steps of ``simple_evaluate`` and ``evaluate``
  that :class:`~optuna_demix.scoring.suite.Suite` puts in order.

Whatever depends on the weights is computed anew each time: lm-eval's caches of responses and of
requests are not used.

Several processes may load the same tasks at the same time: ``datasets`` prepares a data set under
a file lock of its own, in a directory that it renames when complete, and writes the result of a
``map`` to a temporary file that it moves into place. Nothing else is written.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import lm_eval
import lm_eval.api.task
import numpy as np
import torch
import yaml
from lm_eval.api.metrics import mean
from lm_eval.api.registry import AGGREGATION_REGISTRY, DEFAULT_METRIC_REGISTRY, is_higher_better
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.group import GroupConfig
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from optuna_demix.errors import TaskError
from optuna_demix.scoring.batches import Batch, Pair, plan_batches, share_rows
from optuna_demix.scoring.cards import Card, Leaf, configured_metrics
from optuna_demix.scoring.data_files import with_absolute_data
from optuna_demix.scoring.gold import GOLD_METRIC
from optuna_demix.scoring.packed_model import attention_cost, packed_logits, why_unpackable
from optuna_demix.scoring.packing import PackedBatch, pack
from optuna_demix.scoring.passes import Passes, no_room, or_none_without_memory

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION: str = lm_eval.__version__
"""Version of lm-eval."""

STARTING_SEEDS = (DEFAULT_RANDOM_SEED, DEFAULT_OTHER_SEED, DEFAULT_OTHER_SEED)
"""Seeds of Python, numpy and torch that ``simple_evaluate`` starts with."""

_log = logging.getLogger(__name__)

_KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


# ------------------------------------------------------------------------------------- quietness


@contextmanager
def quiet(*, count_downloads: bool = True) -> Iterator[None]:
    """Keep lm-eval's and datasets' progress bars and chatter from the terminal.

    Args:
        count_downloads: Let ``datasets`` tell its hub that a builder was used. It does so even for
            local files, waiting up to three seconds for an answer where there is no network.
    """
    with ExitStack() as stack:
        logger = logging.getLogger("lm_eval")
        if logger.level == logging.NOTSET:  # leave a level that the user chose
            logger.setLevel(logging.ERROR)
            stack.callback(logger.setLevel, logging.NOTSET)
        bars = lm_eval.api.task.tqdm
        lm_eval.api.task.tqdm = lambda iterable, **_: iterable
        stack.callback(setattr, lm_eval.api.task, "tqdm", bars)
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        if not count_downloads:
            counting = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
            datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
            stack.callback(setattr, datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", counting)
        yield


# ------------------------------------------------------------------------------------- catalogue


class Catalogue:
    """Tasks by name: those of local directories first, then lm-eval's own.

    lm-eval's index of its own tasks takes seconds to read, so it is read only for a name that the
    local directories lack.

    Args:
        folders: Directories of local tasks.

    Raises:
        TaskError: If one of them is not a directory.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise TaskError(
                    f"include_path {folder} is not a directory; create it or correct it"
                )
        self.folders = [folder.resolve() for folder in folders]
        with quiet():
            self._manager = TaskManager(
                include_path=[str(folder) for folder in self.folders], include_defaults=False
            )
        self._local = dict(self._index)
        self.complete = False

    @property
    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = self._manager.task_index  # the very mapping that loading reads
        return index

    @property
    def names(self) -> list[str]:
        """Every name known so far."""
        return sorted(self._index)

    def card(self, name: str) -> Card | None:
        """What the configuration says about a name; ``None`` if nothing has it.

        Raises:
            TaskError: If the file that defines it cannot be read, or its group names a task that
                does not exist.
        """
        entry = self._find(name)
        if entry is None:
            return None
        config = entry.cfg or {}
        kind = {Kind.GROUP: "group", Kind.TAG: "tag"}.get(entry.kind, "task")
        aggregates = (
            {agg["metric"]: _filter_list(agg) for agg in _listed(config, "aggregate_metric_list")}
            if kind == "group"
            else {}
        )
        try:
            leaves = tuple(self._leaves(entry, {}))
        except (TypeError, KeyError, AttributeError) as error:
            raise TaskError(
                f"{entry.yaml_path}: task {name!r} cannot be read: {error!r}"
            ) from error
        return Card(name, kind, entry.yaml_path, leaves, aggregates)  # type: ignore[arg-type]

    def load(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load a task or group with its data.

        Returns:
            The tasks and the groups behind the name, by name.

        Raises:
            TaskError: If lm-eval or datasets cannot load it.
        """
        local = name in self._local
        path = (self._local if local else self._index)[name].yaml_path
        try:
            self._make_data_absolute(name)
            with quiet(count_downloads=not local):
                loaded = self._manager.load([name])
        except TaskError:
            raise
        except Exception as error:
            raise TaskError(f"{path}: task {name!r} cannot be loaded: {_reason(error)}") from error
        return dict(loaded["tasks"]), dict(loaded["groups"])

    def _find(self, name: str) -> Any | None:
        if name not in self._index and not self.complete:
            self._raise_if_broken(name)
            for known, entry in _own_index().items():
                self._index.setdefault(known, entry)
            self.complete = True
        return self._index.get(name)

    def _raise_if_broken(self, name: str) -> None:
        """Name the local file that would define a task if it could be read."""
        for folder in self.folders:
            for path in sorted(folder.rglob("*.yaml")):
                text = path.read_text("utf-8", errors="replace")
                if not any(
                    line.partition("#")[0].replace('"', "").replace("'", "").split()
                    in (["task:", name], ["group:", name])
                    for line in text.splitlines()
                ):
                    continue
                try:
                    load_yaml(path, resolve_func=False)
                except Exception as error:
                    raise TaskError(
                        f"{path}: task {name!r} cannot be read: {_reason(error)}"
                    ) from error

    def _leaves(self, entry: Any, overrides: Mapping[str, Any]) -> Iterator[Leaf]:
        """The tasks behind an entry with their overrides, as lm-eval's factory builds them."""
        if entry.kind is Kind.TAG:
            for name in sorted(entry.tags):
                yield from self._leaves(self._member(entry, name), overrides)
        elif entry.kind is Kind.GROUP:
            yield from self._group_leaves(entry, entry.cfg, overrides)
        else:
            yield self._leaf(entry.name, {**(entry.cfg or {}), **overrides}, entry.yaml_path)

    def _group_leaves(
        self, entry: Any, config: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> Iterator[Leaf]:
        if entry.yaml_path is not None and self._is_local(entry.yaml_path):
            config = with_absolute_data(config, entry.yaml_path.parent)
        structural = {f.name for f in dataclass_fields(GroupConfig)}
        overrides = {**{k: v for k, v in config.items() if k not in structural}, **overrides}
        for member in _listed(config, "task"):
            if isinstance(member, str):
                yield from self._leaves(self._member(entry, member), overrides)
                continue
            merged = {**overrides, **member}
            name = member.get("group", member.get("task"))
            inline = "task" in member and ("group" in member or "dataset_path" in member)
            if inline and name not in self._index:
                if "group" in member:
                    yield from self._group_leaves(entry, member, overrides)
                else:
                    yield self._leaf(f"{entry.name}::{name}", merged, entry.yaml_path)
                continue
            merged.pop("group", None)
            yield from self._leaves(self._member(entry, name), merged)

    def _member(self, entry: Any, name: str) -> Any:
        found = self._find(name)
        if found is None:
            raise TaskError(
                f"{entry.yaml_path}: group {entry.name!r} names task {name!r}, which does not "
                "exist"
            )
        return found

    def _leaf(self, name: str, config: Mapping[str, Any], path: Path | None) -> Leaf:
        if path is not None and self._is_local(path):
            config = with_absolute_data(config, path.parent)
        metrics, is_open = configured_metrics(
            config, defaults=DEFAULT_METRIC_REGISTRY, direction=_direction
        )
        return Leaf(name, config, path, metrics, is_open)

    def _is_local(self, path: Path) -> bool:
        return any(folder in path.resolve().parents for folder in self.folders)

    def _make_data_absolute(self, name: str) -> None:
        """Give lm-eval absolute data paths for a local name and all that it refers to."""
        entry = self._index.get(name)
        if entry is None or entry.yaml_path is None or not self._is_local(entry.yaml_path):
            return
        folder = entry.yaml_path.parent
        if with_absolute_data(entry.cfg, folder) != entry.cfg:
            config = with_absolute_data(load_yaml(entry.yaml_path, resolve_func=True), folder)
            self._index[name] = replace(entry, yaml_path=None, cfg=config)
        if entry.kind is Kind.GROUP:
            for member in _listed(entry.cfg, "task"):
                is_name = isinstance(member, str)
                self._make_data_absolute(
                    member if is_name else member.get("group", member.get("task"))
                )


@functools.cache
def _own_index() -> dict[str, Entry]:
    with quiet():
        return dict(TaskManager().task_index)


def _listed(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config.get(key) or []
    return value if isinstance(value, list) else [value]


def _filter_list(aggregate: Mapping[str, Any]) -> list[str] | None:
    value = aggregate.get("filter_list")
    return [value] if isinstance(value, str) else value


def _direction(metric: str) -> bool | None:
    with quiet():
        found = is_higher_better(metric)
    return None if found is None else bool(found)


def _reason(error: BaseException) -> str:
    """An exception in one line."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.YAMLError) and mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not YAML'}"
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    cause = error.__cause__
    return said if cause is None or type(cause) is type(error) else f"{said} ({_reason(cause)})"


# ----------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class Plan:
    """Requests of one kind, ready to be answered.

    Attributes:
        kind: The kind.
        instances: lm-eval's requests, repeated ones several times.
        passes: Their layout; empty for generation.
        windows: Of each request, how many runs of tokens it was cut into.
    """

    kind: str
    instances: list[Any]
    passes: Sequence[Batch | PackedBatch]
    windows: list[int]


class PreparedModel(HFLM):  # type: ignore[misc]
    """lm-eval's model over live weights, with its requests tokenised and laid out beforehand.

    Prompts, special tokens, windows and truncation are ``HFLM``'s own code, run once; generation
    is its own code on remembered token ids. Only the log-likelihoods are computed differently,
    see :mod:`optuna_demix.scoring.readout` and, for shared prefixes,
    :mod:`optuna_demix.scoring.packing`.

    Args:
        model: A causal language model; its weights may change in place at any time.
        tokenizer: Its tokenizer; a copy is used, because lm-eval may add a padding token.
        batch_size: Rows of one forward pass.
        max_length: Longest input in tokens; ``None`` for the model's own.
        mixed_precision_dtype: Compute forward passes under autocast to this dtype.
        shared_prefixes: Compute what requests begin with alike only once, where the model can.

    Raises:
        TaskError: If the model is not a causal language model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        max_length: int | None = None,
        mixed_precision_dtype: str | None = None,
        shared_prefixes: bool = False,
    ) -> None:
        self._ids: dict[Any, Any] = {}
        self._captured: list[Pair] = []
        self._rows = batch_size
        self.packs = shared_prefixes
        self.passes = Passes(self._run)
        with quiet():
            super().__init__(
                pretrained=model,
                tokenizer=copy.deepcopy(tokenizer),
                batch_size=batch_size,
                max_length=max_length,
                mixed_precision_dtype=mixed_precision_dtype,
            )
        if self.backend != "causal":
            raise TaskError(
                f"model type {model.config.model_type!r} is not a causal language model; "
                "a proxy must be one"
            )

    def prepare(self, kind: str, groups: Sequence[list[Any]]) -> list[Plan]:
        """Tokenise and lay out requests of one kind.

        Args:
            kind: The kind.
            groups: Requests that are to be answered together.

        Returns:
            One plan for each group.

        Raises:
            TaskError: If a request cannot be answered, naming its task and document.
        """
        if kind == "generate_until":
            for instance in (instance for group in groups for instance in group):
                self._check_room(instance)
            return [Plan(kind, group, [], []) for group in groups]
        found = [[self._tokenise(kind, instance) for instance in group] for group in groups]
        self._ids.clear()
        pairs = [[pair for windows in group for pair in windows] for group in found]
        packs = self._can_pack([pair for group in pairs for pair in group])
        lay_out = self._pack if packs else self._lay_out
        return [
            Plan(kind, group, lay_out(kind, of_group), [len(windows) for windows in tokenised])
            for group, of_group, tokenised in zip(groups, pairs, found, strict=True)
        ]

    def answer(self, plan: Plan) -> list[Any]:
        """Answers to prepared requests, in order, for the weights as they are.

        Returns:
            ``(log-likelihood, is greedy)``, a log-likelihood, or a text, each as lm-eval gives it.
        """
        if not plan.instances:
            return []
        if plan.kind == "generate_until":
            return self._generate(plan.instances)
        rolling = plan.kind == "loglikelihood_rolling"
        sums, matches = self.passes.run(plan.passes, count=sum(plan.windows), greedy=not rolling)
        if not rolling:
            return list(zip(sums, matches, strict=True))
        ends = np.cumsum([0, *plan.windows]).tolist()
        return [sum(sums[a:b]) for a, b in zip(ends, ends[1:], strict=False)]

    def content(self, plan: Plan) -> list[Any]:
        """Every token id that the model is given and how they are batched, to be hashed."""
        if plan.kind == "generate_until":
            return [plan.kind, [self.tok_encode(i.args[0]) for i in plan.instances]]
        return [plan.kind, plan.windows, [passed.content() for passed in plan.passes]]

    def _lay_out(self, kind: str, pairs: Sequence[Pair]) -> list[Batch]:
        # lm-eval lays all log-likelihood requests out together, but rolling ones batch by batch.
        step = self._rows if kind == "loglikelihood_rolling" else max(len(pairs), 1)
        return [
            batch
            for start in range(0, len(pairs), step)
            for batch in plan_batches(
                pairs[start : start + step],
                batch_size=self._rows,
                max_length=self.max_length,
                first_request=start,
            )
        ]

    def _pack(self, kind: str, pairs: Sequence[Pair]) -> list[PackedBatch]:
        rows = share_rows(pairs, max_length=self.max_length)
        longest = max((len(row.ids) for row in rows), default=0)
        return pack(
            rows,
            pass_tokens=self._rows * longest,  # as many as the longest plain batch
            square_cost=attention_cost(self.model),
        )

    def _can_pack(self, pairs: Sequence[Pair]) -> bool:
        rows = share_rows(pairs, max_length=self.max_length)
        if not rows or not self.packs:
            return False
        self.model.eval()
        with torch.inference_mode():
            reason = why_unpackable(self.model, rows, self._run)
        if reason is not None:
            self.packs = False
            _log.warning("scoring.shared_prefixes is left off: %s", reason)
        return self.packs

    def _generate(self, instances: list[Any]) -> list[Any]:
        if self._answers_nan(instances[0].args[0]):
            return [math.nan] * len(instances)
        while True:
            texts: list[str] | None = or_none_without_memory(
                partial(self.generate_until, instances, disable_tqdm=True)
            )
            if texts is not None:
                return texts
            if self.batch_size_per_gpu == 1:
                raise no_room(self.max_length)
            self.batch_size_per_gpu //= 2
            _log.warning(
                "out of memory while generating: going on with %d rows", self.batch_size_per_gpu
            )

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """``HFLM.tok_encode``, remembered."""
        key = (string, add_special_tokens, left_truncate_len)
        if key not in self._ids:
            self._ids[key] = super().tok_encode(
                string, add_special_tokens, left_truncate_len, **kwargs
            )
        ids: list[int] = self._ids[key]
        return ids

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """``HFLM.tok_batch_encode``, remembered."""
        key = (tuple(strings), padding_side, left_truncate_len, truncation)
        if key not in self._ids:
            self._ids[key] = super().tok_batch_encode(
                list(strings), padding_side, left_truncate_len, truncation
            )
        encoded: tuple[Tensor, Tensor] = self._ids[key]
        return encoded

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Where lm-eval would run the model: take the token ids instead."""
        self._captured += [(context, continuation) for _, context, continuation in requests]
        return [(math.nan, False)] * len(requests)

    def _tokenise(self, kind: str, instance: Any) -> list[Pair]:
        where = f"task {instance.task_name!r}, document {instance.doc_id}"
        if kind == "loglikelihood" and not instance.args[1]:
            raise TaskError(f"{where}: an answer is the empty text, which has no likelihood")
        self._captured = []
        getattr(super(), kind)([instance], disable_tqdm=True)
        for context, continuation in self._captured:
            if not context or not continuation:
                part = "context" if not context else "answer"
                raise TaskError(f"{where}: the {part} has no tokens of its own")
            if len(continuation) > self.max_length:
                raise TaskError(
                    f"{where}: an answer of {len(continuation)} tokens does not fit into "
                    f"max_length {self.max_length}; raise max_length"
                )
        return self._captured

    def _check_room(self, instance: Any) -> None:
        wanted = normalize_gen_kwargs(instance.args[1], self.max_gen_toks)["max_gen_toks"]
        if wanted >= self.max_length:
            raise TaskError(
                f"task {instance.task_name!r}: generates up to {wanted} tokens, which leaves no "
                f"room for a prompt in max_length {self.max_length}; raise max_length or lower "
                "max_gen_toks in the task's generation_kwargs"
            )

    def _run(self, passed: Batch | PackedBatch) -> Tensor:
        """Logits of a pass: (B, L, V), or (1, R, V) of the kept tokens of a packed one."""
        if isinstance(passed, Batch):
            return self._logits_of(passed.inputs.to(self.device))
        with self._autocast():
            return packed_logits(self.model, passed)

    def _logits_of(self, ids: Tensor) -> Tensor:
        """Logits (B, L, V) of token ids (B, L), called exactly as lm-eval calls the model."""
        with self._autocast():
            logits: Tensor = self.model(ids).logits
        return logits

    def _autocast(self) -> torch.autocast:
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _answers_nan(self, prompt: str) -> bool:
        """Whether the model answers with NaN, which generation would turn into some token."""
        ids = torch.tensor([self.tok_encode(prompt)[-self.max_length :]], device=self.device)
        return bool(self._logits_of(ids).isnan().any())


# ---------------------------------------------------------------------------------- loaded tasks


def configure(task: Any, num_fewshot: int | None, *, seed: int) -> None:
    """Set what ``simple_evaluate`` sets on a loaded task: few-shot examples and their seed."""
    stated = task.get_config("num_fewshot")
    if stated is None or (num_fewshot is not None and stated != 0):  # a stated 0 is left alone
        task.set_config(key="num_fewshot", value=num_fewshot or 0)
    task.set_fewshot_seed(seed=seed)


def build_requests(task: Any, limit: float | None, *, where: str) -> None:
    """Fill ``task.instances``, then keep the templates of each document as rendered.

    Args:
        task: A loaded and configured task.
        limit: Documents, as a number or a fraction.
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
            task.build_all_requests(limit=get_sample_size(task, limit))
    except Exception as error:
        raise TaskError(f"{where}: its requests cannot be built: {_reason(error)}") from error
    kinds = {instance.request_type for instance in task.instances}
    if not kinds <= set(_KINDS):
        names = ", ".join(sorted(kinds - set(_KINDS)))
        raise TaskError(f"{where}: requests of type {names} are not supported")
    if isinstance(task, ConfigurableTask):
        for method in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            setattr(task, method, _remembered(getattr(task, method)))


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
    """A task's configuration without the places of files, which differ between hosts."""
    config = task.config
    result = {f.name: getattr(config, f.name) for f in dataclass_fields(config)}
    for key, places in (
        ("dataset_kwargs", {"data_files", "data_dir"}),
        ("metadata", {"config_source"}),
    ):
        result[key] = {k: v for k, v in (result[key] or {}).items() if k not in places}
    return result


def _remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """A template of a task rendered once per document: lm-eval compiles and renders it each time.

    Documents are recognised by identity; the task's requests keep them alive.
    """
    rendered: dict[int, Any] = {}

    def lookup(document: Any, override: Any = None) -> Any:
        if override is not None:
            return method(document, override)
        if id(document) not in rendered:
            rendered[id(document)] = method(document)
        return rendered[id(document)]

    return lookup
