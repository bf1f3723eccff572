"""``PreparedModel``: lm-eval's ``HFLM`` over live weights, its requests laid out once."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from optuna_demix.errors import TaskError
from optuna_demix.scoring.forward import (
    Batch,
    PackedBatch,
    Pair,
    Passes,
    attention_cost,
    no_room,
    or_none_without_memory,
    pack,
    packed_logits,
    plan_batches,
    share_rows,
    token_counts,
    why_unpackable,
)
from optuna_demix.scoring.generation import Progress
from optuna_demix.scoring.harness.forward_plan import ForwardPlan
from optuna_demix.scoring.harness.quiet import quiet
from optuna_demix.scoring.harness.texts import Texts
from optuna_demix.scoring.harness.writing import engine_of
from optuna_demix.scoring.vllm_extra import VllmSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class PreparedModel(HFLM):  # type: ignore[misc]
    """lm-eval's model over live weights, with its requests tokenized and laid out beforehand.

    Prompts, special tokens, windows and truncation are ``HFLM``'s own code, run once. Only the
    log-likelihoods are computed differently, see :mod:`optuna_demix.scoring.forward.readout` and,
    for shared prefixes, :mod:`optuna_demix.scoring.forward.packing`; and texts are written by
    :mod:`optuna_demix.scoring.generation` where it can, elsewhere by ``HFLM`` on remembered
    token ids.

    Args:
        model: A causal language model; its weights may change in place at any time.
        tokenizer: Its tokenizer; a copy is used, because lm-eval may add a padding token.
        batch_size: Rows of one forward pass.
        max_length: Longest input in tokens; ``None`` for the model's own.
        mixed_precision_dtype: Compute forward passes under autocast to this dtype.
        shared_prefixes: Compute what requests begin with alike only once, where the model can.
        add_bos_token: Begin texts with the BOS token, or do not; ``None`` for the tokenizer's way.
        generation: What writes texts where it can: our own loop (``"auto"``), ``HFLM`` (``"hf"``)
            or vLLM (``"vllm"``).
        vllm: What vLLM may use.

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
        add_bos_token: bool | None = None,
        generation: Literal["auto", "hf", "vllm"] = "auto",
        vllm: VllmSettings | None = None,
    ) -> None:
        self._ids: dict[Any, Any] = {}
        self._captured: list[Pair] = []
        self._rows = batch_size
        self.packs = shared_prefixes
        self.passes = Passes(self._run)
        tokenizer = copy.deepcopy(tokenizer)
        if add_bos_token is not None:
            tokenizer.add_bos_token = add_bos_token  # as when it is loaded with this argument
        with quiet():
            super().__init__(
                pretrained=model,
                tokenizer=tokenizer,
                batch_size=batch_size,
                max_length=max_length,
                mixed_precision_dtype=mixed_precision_dtype,
                add_bos_token=add_bos_token,
            )
        if self.backend != "causal":
            raise TaskError(
                f"model type {model.config.model_type!r} is not a causal language model; "
                "a proxy must be one"
            )
        self.progress = Progress()
        self._texts = Texts(self, engine_of(self, generation, vllm, batch_size), self.progress)

    @property
    def writer(self) -> str:
        """Name of what writes texts where lm-eval does not."""
        return self._texts.writer

    def weights_changed(self) -> None:
        """Forget what depends on the weights."""
        self._texts.weights_changed()

    def chat(self, template: bool | str | None) -> Callable[..., str] | None:
        """What makes a prompt of a chat's messages.

        Args:
            template: Whether there are chats, or the name of one of the tokenizer's templates.
        """
        if not template:
            return None

        def rendered(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            named = {"chat_template": template} if isinstance(template, str) else {}
            self.chat_template_args = named
            return str(self.apply_chat_template(messages, add_generation_prompt))

        return rendered

    def prepare(
        self,
        kind: str,
        groups: Sequence[list[Any]],
        *,
        think_end_token: str | int | None = None,
    ) -> list[ForwardPlan]:
        """Tokenize and lay out requests of one kind.

        Args:
            kind: The kind.
            groups: Requests that are to be answered together.
            think_end_token: Of texts only what follows the last such token is the answer.

        Returns:
            One plan for each group.

        Raises:
            TaskError: If a request cannot be answered, naming its task and document.
        """
        if kind == "generate_until":
            for instance in (instance for group in groups for instance in group):
                self.tok_encode(instance.args[0])  # refuses tokens that the model lacks
            prompts = [self._texts.prompts(group, think_end_token) for group in groups]
            return [
                ForwardPlan(kind, group, [], [], think_end_token, given)
                for group, given in zip(groups, prompts, strict=True)
            ]
        found = [[self._tokenize(kind, instance) for instance in group] for group in groups]
        self._ids.clear()
        pairs = [[pair for windows in group for pair in windows] for group in found]
        packs = self._can_pack([pair for group in pairs for pair in group])
        lay_out = self._pack if packs else self._lay_out
        return [
            ForwardPlan(
                kind, group, lay_out(kind, of_group), [len(windows) for windows in tokenized]
            )
            for group, of_group, tokenized in zip(groups, pairs, found, strict=True)
        ]

    def answer(self, plan: ForwardPlan) -> list[Any]:
        """Answers to prepared requests, in order, for the weights as they are.

        Returns:
            ``(log-likelihood, is greedy)``, a log-likelihood, or a text, each as lm-eval gives it.
        """
        if not plan.instances:
            return []
        if plan.kind == "generate_until":
            return self._write(plan)
        rolling = plan.kind == "loglikelihood_rolling"
        sums, matches = self.passes.run(plan.passes, count=sum(plan.windows), greedy=not rolling)
        if not rolling:
            return list(zip(sums, matches, strict=True))
        ends = np.cumsum([0, *plan.windows]).tolist()
        return [sum(sums[a:b]) for a, b in zip(ends, ends[1:], strict=False)]

    def token_log_probabilities(self, plan: ForwardPlan) -> NDArray[np.float32]:
        """Log-probability of every scored token of prepared requests, in order, (T,).

        What :meth:`answer` adds up; the tokens of a request stand side by side.
        """
        found = self.passes.run_tokens(plan.passes, count=sum(plan.windows))
        return np.concatenate([np.empty(0, dtype=np.float32), *found])

    def token_counts(self, plan: ForwardPlan) -> NDArray[np.int64]:
        """Number of scored tokens of each prepared request, (n,), without running the model."""
        of_windows = token_counts((each.readout for each in plan.passes), count=sum(plan.windows))
        ends = np.cumsum([0, *plan.windows])
        totals = np.concatenate([[0], np.cumsum(of_windows)])[ends]
        counts: NDArray[np.int64] = np.diff(totals)
        return counts

    def text_sizes(self, plan: ForwardPlan) -> list[tuple[int, int]]:
        """Tokens of each prompt of prepared texts, and the most that are written after it."""
        return self._texts.sizes(plan.instances)

    def content(self, plan: ForwardPlan) -> list[Any]:
        """Every token id that the model is given and what is done with them, to be hashed.

        Arguments of generation belong to the requests, which are hashed with their documents.
        """
        if plan.kind == "generate_until":
            ids = [self.tok_encode(i.args[0]) for i in plan.instances]
            return [plan.kind, ids, self._generation(plan)]
        return [plan.kind, plan.windows, [each.content() for each in plan.passes]]

    def _generation(self, plan: ForwardPlan) -> dict[str, Any]:
        """What texts depend on beside weights, prompts and their own arguments."""
        chosen = self.model.generation_config.to_diff_dict()
        return {
            "eos": self.eot_token_id,
            "pad": self.tokenizer.pad_token_id,
            "think_end_token": plan.think_end_token,
            "writers": self._texts.writers(plan.prompts),
            "model": {
                name: value
                for name, value in chosen.items()
                if name not in ("transformers_version", "_from_model_config")
            },
        }

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
            reason = why_unpackable(self.model, rows)
        if reason is not None:
            self.packs = False
            _log.warning("scoring.shared_prefixes is left off: %s", reason)
        return self.packs

    def _write(self, plan: ForwardPlan) -> list[Any]:
        """Texts of prepared requests, by the engine and by lm-eval."""
        own = [prompt for prompt in plan.prompts if prompt is not None]
        given = iter(self._texts.write(own))
        pairs = list(zip(plan.instances, plan.prompts, strict=True))
        self.think_end_token = plan.think_end_token
        left = iter(self._generate([instance for instance, prompt in pairs if prompt is None]))
        return [next(left) if prompt is None else next(given) for _, prompt in pairs]

    def _generate(self, instances: list[Any]) -> list[Any]:
        if not instances:
            return []
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
            self._check_embedded(max(self._ids[key], default=0))
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
            self._check_embedded(int(self._ids[key][0].max()))
        encoded: tuple[Tensor, Tensor] = self._ids[key]
        return encoded

    def _check_embedded(self, largest: int) -> None:
        """Refuse a token id without embedding by name: torch would only fail an assertion."""
        n_embeddings = self.model.get_input_embeddings().weight.shape[0]
        if largest >= n_embeddings:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise TaskError(
                f"token {token!r} is id {largest}, but the model has {n_embeddings} embeddings; "
                "take it out of the text or out of the tokenizer"
            )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Where lm-eval would run the model: take the token ids instead."""
        self._captured += [(context, continuation) for _, context, continuation in requests]
        return [(math.nan, False)] * len(requests)

    def _tokenize(self, kind: str, instance: Any) -> list[Pair]:
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

    def _run(self, batch: Batch | PackedBatch) -> Tensor:
        """Logits of a pass: (B, L, V), or (1, R, V) of the kept tokens of a packed one."""
        if isinstance(batch, Batch):
            return self._logits_of(batch.inputs.to(self.device))
        with self.autocast():
            return packed_logits(self.model, batch)

    def _logits_of(self, ids: Tensor) -> Tensor:
        """Logits (B, L, V) of token ids (B, L), called exactly as lm-eval calls the model."""
        with self.autocast():
            logits: Tensor = self.model(ids).logits
        return logits

    def autocast(self) -> torch.autocast:
        """What forward passes run in."""
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _answers_nan(self, prompt: str) -> bool:
        """Whether the model answers with NaN, which generation would turn into some token."""
        ids = torch.tensor([self.tok_encode(prompt)[-self.max_length :]], device=self.device)
        return bool(self._logits_of(ids).isnan().any())
