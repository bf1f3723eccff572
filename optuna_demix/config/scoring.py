"""Benchmarks and how they are scored."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from optuna_demix.config._base import (
    BlockCount,
    Count,
    Part,
    PositiveCount,
    PositiveShare,
    Seed,
    StrictModel,
    TokenCount,
)
from optuna_demix.merging.device_map import DEVICES, STRATEGIES, device_name
from optuna_demix.scoring.settings import TaskSettings
from optuna_demix.scoring.vllm_extra import VllmSettings


class TaskSettingsConfig(StrictModel):
    """Settings of lm-eval's run, for all benchmarks or, over these, for one."""

    num_fewshot: Count | None = None
    """Number of few-shot examples; default: the task's own."""
    limit: PositiveCount | Part | None = None
    """Score the first items only: so many, or below 1 that part of them."""
    apply_chat_template: StrictBool | StrictStr | None = None
    """Put prompts into the tokenizer's chat template, or into the one of this name."""
    system_instruction: str | None = None
    """What prompts begin with; in a chat, the system's message."""
    fewshot_as_multiturn: bool | None = None
    """Few-shot examples as turns of the chat (default) or in one message."""
    gen_kwargs: dict[str, Any] | None = None
    """Arguments of generation over the task's own: ``max_gen_toks``, ``until``, ``temperature``, …
    """
    repeats: PositiveCount | None = None
    """Answers to each question, where texts are sampled and the task keeps several; ``pass@k``
    needs at least ``k``."""
    metadata: dict[str, Any] | None = None
    """Arguments of tasks that make their own data, such as RULER's ``max_seq_lengths``."""
    think_end_token: StrictStr | Count | None = None
    """Only what follows the last such token, by its text or id, is an answer."""

    @property
    def settings(self) -> TaskSettings:
        """The settings as the scorer takes them."""
        return TaskSettings(
            **{each.name: getattr(self, each.name) for each in fields(TaskSettings)}
        )

    @model_validator(mode="after")
    def _usable(self) -> TaskSettingsConfig:
        said = self.settings.problem()
        if said is not None:
            raise ValueError(said)
        return self


class BenchmarkConfig(TaskSettingsConfig):
    """One lm-eval task metric, with the settings that it has for itself."""

    task: str
    """Name of an lm-eval task, built in or from ``scoring.include_path``."""
    metric: str
    """Metric of the task, ``acc`` or ``exact_match,strict-match`` (with a filter)."""
    name: str | None = None
    """What it is called in the study; default ``task/metric``."""
    higher_is_better: bool | None = None
    """Whether higher scores are better, where the task does not say it."""

    @property
    def label(self) -> str:
        """The name of the benchmark in the study."""
        return self.name or f"{self.task}/{self.metric}"


class RacingConfig(StrictModel):
    """Scoring in blocks of items, so that a proxy which is losing can be dropped early."""

    blocks: BlockCount = 24
    """Parts that every benchmark's items are dealt to, in a fixed shuffled order."""
    pruner: Literal["wilcoxon", "median"] = "wilcoxon"
    """``wilcoxon`` compares the blocks of a trial with those of the best one, pair by pair;
    ``median`` its running mean with that of earlier trials."""
    p_threshold: Part = 0.2
    """Significance at which the Wilcoxon test drops a trial; smaller drops later."""


class VllmConfig(StrictModel):
    """What vLLM may use; the names are vLLM's own."""

    kv_cache_memory_bytes: TokenCount = VllmSettings.kv_cache_memory_bytes
    """Memory for keys and values, beside that of the model; at least what one text of
    ``max_length`` tokens needs."""
    max_num_seqs: PositiveCount = VllmSettings.max_num_seqs
    """Most texts written at the same time."""
    enforce_eager: bool = VllmSettings.enforce_eager
    """Neither compile nor capture graphs: starts sooner, writes more slowly."""


class ScreenConfig(StrictModel):
    """Texts are written only for mixtures that are likely to find the right answers.

    Every trial is scored on all other benchmarks and on the bits per byte of the right answers.
    If its estimated objectives are among the best, texts are written; else it is pruned. The first
    eight trials write texts in any case. On surfaces with known scores this did not pay: with as
    many texts plain trials found mixtures as good (``benchmarks/README.md``).
    """

    benchmarks: Literal["auto"] | list[str] = "auto"
    """Names of the benchmarks whose texts are to be spared; ``auto``: all that generate."""
    keep: PositiveShare = 0.25
    """A trial writes texts if it is among this best share of itself and the sixteen trials before
    it; of all trials no larger share does, the first eight not counted."""
    answers: dict[str, str] = Field(default_factory=dict)
    """Field of a task's documents that holds the right answer, by benchmark, where the task's
    ``doc_to_target`` is something else: ``canonical_solution`` for HumanEval, ``code`` for MBPP,
    ``solution`` for ``minerva_math``."""


class ScoringConfig(TaskSettingsConfig):
    """How lm-eval scores a proxy, with the settings that all benchmarks share."""

    include_path: str | list[str] | None = None
    """Directory of local tasks, or several; of tasks of one name the last one's."""
    batch_size: PositiveCount | Literal["auto"] = 32
    """Rows of one forward pass; ``auto`` begins with ``max_batch_size`` and halves when memory
    runs out."""
    max_batch_size: PositiveCount | None = None
    """Rows at which ``batch_size: auto`` begins; default 64."""
    max_length: PositiveCount | None = None
    """Longest input in tokens; default: the model's own."""
    add_bos_token: bool | None = None
    """Begin texts with the BOS token, or do not; default: the tokenizer's way."""
    seed: Seed = 1234
    """Seed of few-shot examples, of the order of items and, with the trial's number, of sampled
    texts."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the model's parameters; default: that of the arena."""
    mixed_precision_dtype: Literal["bfloat16", "float16"] | None = None
    """Run forward passes under autocast to this dtype."""
    device_map: str | dict[str, StrictInt | StrictStr] | None = None
    """Where the model lies, where ``--device`` names no device: ``cpu``, ``cuda`` or
    ``cuda:<number>``; or, over several devices, what transformers and accelerate mean by ``auto``,
    ``balanced``, ``balanced_low_0`` and ``sequential``, or by a map from names of modules to
    devices: ``{model.embed_tokens: 0, model.layers: 0, …, lm_head: 1}``. Default: one CUDA device,
    or the CPU."""
    shared_prefixes: bool = False
    """Compute what requests begin with alike only once; faster, and equal up to rounding."""
    generation: Literal["auto", "hf", "vllm"] = "auto"
    """``auto`` writes texts by our own loop where it can and by lm-eval's elsewhere; ``hf`` by
    lm-eval's; ``vllm`` by vLLM where it can (``pip install 'optuna-demix[vllm]'``) and by
    lm-eval's elsewhere."""
    vllm: VllmConfig | None = None
    """What vLLM may use."""
    racing: RacingConfig | None = None
    """Score in blocks and drop losing proxies; needs a single objective."""
    screen: ScreenConfig | None = None
    """Let only promising proxies write texts, which cost most; off unless it is given."""
    trust_remote_code: bool = False
    """Run code that comes with a component."""
    confirm_run_unsafe_code: bool = False
    """Allow tasks that run code which the model wrote, in a sandbox."""
    confirm_run_unsafe_code_unsandboxed: bool = False
    """Allow them without a sandbox: that code may then do all that the worker may."""

    @field_validator("device_map")
    @classmethod
    def _known_devices(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if not value:
                raise ValueError("give at least one module its device, or leave the map out")
            for device in value.values():
                device_name(device)
        elif value is not None and value not in STRATEGIES and not _is_device(value):
            raise ValueError(
                f"{value!r} is not a device; give {', '.join(STRATEGIES)}, {DEVICES}, or the "
                "device of each module"
            )
        return value

    @model_validator(mode="after")
    def _one_kind_for_autocast(self) -> ScoringConfig:
        devices = self.device_map.values() if isinstance(self.device_map, dict) else ()
        kinds = {device_name(device).partition(":")[0] for device in devices}
        if self.mixed_precision_dtype is not None and len(kinds) > 1:
            raise ValueError(
                "'mixed_precision_dtype' needs devices of one kind, but 'device_map' names "
                f"{' and '.join(sorted(kinds))}; set 'dtype' instead"
            )
        return self

    @model_validator(mode="after")
    def _batch_size_fits(self) -> ScoringConfig:
        if self.max_batch_size is not None and self.batch_size != "auto":
            raise ValueError("'max_batch_size' belongs to 'batch_size: auto'; remove one of them")
        return self

    @model_validator(mode="after")
    def _vllm_fits(self) -> ScoringConfig:
        if self.vllm is not None and self.generation != "vllm":
            raise ValueError("'vllm' belongs to 'generation: vllm'; remove one or add the other")
        if self.generation == "vllm" and self.mixed_precision_dtype is not None:
            raise ValueError(
                "vLLM runs without autocast; set 'dtype' instead of 'mixed_precision_dtype', or "
                "'generation: auto'"
            )
        return self

    @property
    def vllm_settings(self) -> VllmSettings:
        """The settings as the scorer takes them."""
        return VllmSettings(**(self.vllm or VllmConfig()).model_dump())

    @property
    def rows(self) -> int:
        """Rows of one forward pass."""
        return (self.max_batch_size or 64) if self.batch_size == "auto" else self.batch_size


def _is_device(value: str) -> bool:
    try:
        device_name(value)
    except ValueError:
        return False
    return True
