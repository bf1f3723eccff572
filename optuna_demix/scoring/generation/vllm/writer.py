"""``VllmEngine``: greedy search by vLLM with the weights of a live model."""

from __future__ import annotations

import copy
import math
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix._wording import one_line, shortened
from optuna_demix.errors import DemixError, TaskError
from optuna_demix.scoring.generation import refusals
from optuna_demix.scoring.generation.engine import Arguments, Prompt
from optuna_demix.scoring.generation.schedule import grouped
from optuna_demix.scoring.generation.stops import StopWatch, stop_watch
from optuna_demix.scoring.generation.vllm import surroundings
from optuna_demix.scoring.generation.vllm.weights import Source, offered
from optuna_demix.scoring.vllm_extra import VllmSettings, require_vllm

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROBE = 12  # tokens of the text that both models read
_ELSEWHERE = "set scoring.generation to auto"
_MEMORY = (
    "change scoring.vllm.kv_cache_memory_bytes, lower scoring.max_length or "
    "scoring.vllm.max_num_seqs, or "
)
_running: weakref.ref[VllmEngine] | None = None


class VllmEngine:
    """Greedy search by vLLM, in this process.

    A :class:`~optuna_demix.scoring.generation.engine.GenerationEngine`. The engine starts when it
    is first asked whether it refuses arguments. There is one in a process: another one that starts
    ends it, and it starts again when it is used again.

    Args:
        model: A causal language model on its device; its weights may change in place.
        tokenizer: Its tokenizer, with a padding token.
        max_length: Most tokens of a prompt and its text.
        settings: How much vLLM may use.
        wrote: Called with the number of new tokens after each step.

    Raises:
        DemixError: If vLLM is missing or of another version.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        settings: VllmSettings | None = None,
        wrote: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._version = require_vllm()
        self._model, self._tokenizer = model, tokenizer
        self._max_length = max_length
        self._settings = settings or VllmSettings()
        self._wrote = wrote
        self._source = Source(model)
        self._watches: dict[tuple[str, ...], StopWatch] = {}
        self._engine: Any = None
        self._stale = False
        self._asked = 0

    def refuses(self, arguments: Arguments) -> str | None:
        """Why it cannot write so, or ``None`` if it can.

        The first time, the engine is started and compared with the model on a few tokens.

        Raises:
            TaskError: If the model answers them with NaN.
            DemixError: If vLLM cannot run the model.
        """
        said = refusals.of_settings(self._model, self._tokenizer) or refusals.of_arguments(
            arguments, self._model, self._tokenizer
        )
        if said is None and self._engine is None:
            if self._answers_nan():
                raise TaskError(
                    "vLLM is tried on a few tokens, but the model answers with NaN: give it "
                    "weights first, those of any mixture"
                )
            self._start()
        return said

    def weights_changed(self) -> None:
        """Forget what was computed, and take the weights over before the next text."""
        self._stale = True

    def describe(self) -> dict[str, Any]:
        """What the texts depend on beside weights, prompts and arguments."""
        return {"engine": "vllm", "version": self._version}

    def generate(self, prompts: Sequence[Prompt]) -> list[list[int] | None]:
        """Go on with prompts.

        Args:
            prompts: Prompts whose arguments are not refused.

        Returns:
            Of every prompt the new tokens, an end token included; ``None`` for NaN, which may
            reach other prompts of the call through the memory that they share.

        Raises:
            DemixError: If vLLM does not answer as the live model does.
        """
        if self._engine is None or self._stale:
            if self._answers_nan():
                return [None] * len(prompts)
            if self._engine is None:
                self._start()
            else:
                self._take_over()
        order = [prompt for group in grouped(prompts) for prompt in group.prompts]
        with self._in_one_line("fails"), surroundings.running():
            found = self._write(order)
        if None in found.values():
            self.close()  # its blocks of keys and values hold NaN, which masks do not stop
        return [None if (text := found[prompt]) is None else [*text] for prompt in prompts]

    def close(self) -> None:
        """End the engine and free its memory; it starts again when it is used."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with surroundings.running():
                engine.engine_core.shutdown()

    def _start(self) -> None:
        global _running
        other = None if _running is None else _running()
        if other is not None:
            other.close()
        with self._in_one_line("does not start"), surroundings.starting():
            self._engine = self._made()
        _running = weakref.ref(self)
        self._stale = False
        self._compare()

    def _made(self) -> Any:
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.llm_engine import LLMEngine
        except Exception as error:  # of an extension that was built for another machine
            raise DemixError(
                f"scoring.generation: vllm cannot be imported ({one_line(error)}); {_ELSEWHERE}"
            ) from error
        device = self._model.device
        if len({parameter.device for parameter in self._model.parameters()}) > 1:
            raise DemixError(
                "scoring.generation: vllm runs a model on one device, and this one is spread over "
                f"several; {_ELSEWHERE}"
            )
        if current_platform.device_type != device.type:
            raise DemixError(
                f"scoring.generation: this vllm was built for {current_platform.device_type}, but "
                f"the model lives on {device.type}; install the other build, or {_ELSEWHERE}"
            )
        settings = self._settings
        with tempfile.TemporaryDirectory() as folder, offered(self._source) as loading:
            _save_config(self._model, folder)
            arguments = EngineArgs(
                model=folder,
                **loading,
                skip_tokenizer_init=True,
                generation_config="vllm",  # all is said with each text
                dtype=str(self._model.dtype).removeprefix("torch."),
                max_model_len=self._max_length,
                kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
                max_num_seqs=settings.max_num_seqs,
                # Compiled for a CPU it would keep the packed weights that it has seen first.
                enforce_eager=settings.enforce_eager or device.type == "cpu",
                enable_prefix_caching=True,
                async_scheduling=False,
                distributed_executor_backend="uni",
                disable_log_stats=True,
            )
            config = arguments.create_engine_config()
            if device.index is not None:
                config.device_config.device = device
            return LLMEngine.from_vllm_config(config, disable_log_stats=True)

    def _take_over(self) -> None:
        """Give the engine the weights that the live model has now."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)  # a merge may still be on its way
        bindings = self._source.bindings
        with self._in_one_line("fails"), surroundings.running():
            if bindings.reason is None:
                bindings.update()
            else:
                self._engine.collective_rpc(
                    "reload_weights",
                    kwargs={"weights_iterator": iter(self._source.tensors().items())},
                )
            if not self._engine.reset_prefix_cache():
                raise DemixError(
                    "vLLM keeps what it computed from earlier weights: texts are still being "
                    f"written; restart the worker, or {_ELSEWHERE}"
                )
        self._stale = False
        self._compare()

    def _compare(self) -> None:
        """Check on a few tokens that vLLM has the weights and means the same by them.

        Raises:
            DemixError: If it answers otherwise than the model.
        """
        ids = _probe(self._model)
        wanted, largest = self._expected(ids)
        if wanted.isnan().any():
            return  # so are vLLM's own numbers, and each text says so
        with surroundings.running():
            found = self._engine_scores(ids)
        bound = refusals.tolerance(self._model.dtype) * largest
        difference = float((wanted - found).abs().max())
        if not difference <= bound:
            self.close()
            raise DemixError(
                f"vLLM's log-likelihoods differ from the model's by {difference:.2g}: it does not "
                f"read these weights as transformers does; {_ELSEWHERE}"
            )

    def _expected(self, ids: Sequence[int]) -> tuple[Tensor, float]:
        """Log-probability that the live model gives each token but the first, and a bound."""
        self._model.eval()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            logits = self._model(torch.tensor([ids], device=self._model.device)).logits[0, :-1]
        logits = logits.float()
        scores = logits.log_softmax(dim=-1)
        chosen = torch.tensor(ids[1:], device=logits.device)[:, None]
        return scores.gather(1, chosen)[:, 0].cpu(), float(logits.abs().max())

    def _engine_scores(self, ids: Sequence[int]) -> Tensor:
        """The same of vLLM."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        with self._asking() as name:
            self._engine.add_request(name, {"prompt_token_ids": [*ids]}, params)
            while self._engine.has_unfinished_requests():
                outputs = self._engine.step()
        scores = outputs[-1].prompt_logprobs
        return torch.tensor(
            [found[token].logprob for found, token in zip(scores[1:], ids[1:], strict=True)]
        )

    def _answers_nan(self) -> bool:
        return bool(self._expected(_probe(self._model))[0].isnan().any())

    @contextmanager
    def _asking(self) -> Iterator[str]:
        """A name for requests; those that are left over are dropped in the end."""
        self._asked += 1
        try:
            yield str(self._asked)
        finally:
            states = self._engine.output_processor.request_states
            if states:
                self._engine.abort_request([*states], internal=True)

    def _write(self, prompts: Sequence[Prompt]) -> dict[Prompt, list[int] | None]:
        """Write texts, each prompt once, until the tokens that vLLM gives end them."""
        with self._asking() as name:
            texts = {}
            for number, prompt in enumerate(prompts):
                key = f"{name}-{number}"
                self._engine.add_request(
                    key, {"prompt_token_ids": [*prompt.ids]}, self._params(prompt.arguments)
                )
                texts[key] = _Text(prompt, self._watch(prompt.arguments.stops))
            while self._engine.has_unfinished_requests():
                outputs = self._engine.step()
                self._wrote(sum(len(output.outputs[0].token_ids) for output in outputs))
                ended = [
                    output.request_id
                    for output in outputs
                    if texts[output.request_id].add(output.outputs[0]) and not output.finished
                ]
                if ended:
                    self._engine.abort_request(ended)
        return {text.prompt: text.result for text in texts.values()}

    def _watch(self, stops: tuple[str, ...]) -> StopWatch:
        if stops not in self._watches:
            self._watches[stops] = stop_watch(self._tokenizer, stops)
        return self._watches[stops]

    def _params(self, arguments: Arguments) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=arguments.max_tokens,
            stop_token_ids=sorted(refusals.end_tokens(self._model)),
            logprobs=0,  # those of the chosen tokens: NaN shows
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    @contextmanager
    def _in_one_line(self, what: str) -> Iterator[None]:
        """Say in one line what to do about an engine that does not start or has no room."""
        try:
            yield
        except DemixError:
            raise
        except Exception as error:  # vLLM raises whatever its parts do
            with suppress(Exception):  # it may be too broken for that
                self.close()
            remedy = _MEMORY if _is_of_memory(error) else ""
            raise DemixError(f"vLLM {what} ({_said(error)}); {remedy}{_ELSEWHERE}") from error


class _Text:
    """A text that is being written."""

    def __init__(self, prompt: Prompt, watch: StopWatch) -> None:
        self.prompt = prompt
        self._watch = watch
        self._waiting = self._ended = False
        self._tokens: list[int] = []
        self._broken = False

    def add(self, output: Any) -> bool:
        """Take what was written since; whether the text has ended."""
        self._broken = self._broken or math.isnan(output.cumulative_logprob or 0.0)
        for token in output.token_ids:
            if self._ended:
                break
            self._tokens.append(token)
            self._ended, self._waiting = self._watch.ended(self._tokens, waiting=self._waiting)
        return self._ended or self._broken

    @property
    def result(self) -> list[int] | None:
        """Its tokens, or ``None`` for NaN."""
        return None if self._broken else self._tokens


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error)


def _said(error: Exception) -> str:
    """What an error says; of those that pydantic has found, the first."""
    found = getattr(error, "errors", None)
    return shortened(str(found()[0]["msg"])) if callable(found) else one_line(error)


def _probe(model: PreTrainedModel) -> list[int]:
    size = model.config.get_text_config().vocab_size
    return [(3 + 7 * i) % size for i in range(_PROBE)]


def _save_config(model: PreTrainedModel, folder: str) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
