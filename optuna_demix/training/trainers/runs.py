"""What a trainer is told of a run, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from optuna_demix.errors import ConfigError
from optuna_demix.export import DataSource
from optuna_demix.training._job import Run
from optuna_demix.training._schedule import decay_steps

Schedule: TypeAlias = Literal["cosine", "wsd", "constant"]


@dataclass(frozen=True)
class TextFiles:
    """What ``datasets.load_dataset`` takes to stream the texts of a dataset.

    Attributes:
        load: Its arguments but for ``streaming``; without a ``split`` it is ``train``.
        template: A template of the text, with the names of fields in braces.
    """

    load: Mapping[str, Any]
    template: str = "{text}"


@dataclass(frozen=True)
class PlannedRun:
    """One model for another trainer to train.

    Attributes:
        run: What the study says of it.
        slug: Its name in the names of files and modules: letters, digits and underscores.
        sources: Its data; a dataset of several files has several where the trainer reads paths.
        texts: By the name of a source, where the trainer reads texts.
        start: Hugging Face checkpoint that it starts from; for a new base, one of random weights.
        output: Where the trainer keeps its own checkpoints.
        final: Where the Hugging Face checkpoint shall lie.
    """

    run: Run
    slug: str
    sources: Sequence[DataSource]
    texts: Mapping[str, TextFiles]
    start: Path
    output: Path
    final: Path

    @property
    def name(self) -> str:
        """``base``, the component's name, or ``references/<i>``, in one line for a comment."""
        return " ".join(self.run.name.replace("\\", "/").replace('"', "'").split())

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.run.steps

    @property
    def warmup_steps(self) -> int:
        """Steps that warm up linearly."""
        return math.ceil(self.run.budget.warmup_ratio * self.steps)

    @property
    def decay_steps(self) -> int:
        """How many of the last steps decay."""
        if self.run.budget.schedule == "wsd":
            return min(decay_steps(self.run), self.steps - self.warmup_steps)
        return self.steps - self.warmup_steps

    @property
    def schedule(self) -> Schedule:
        """What happens to the learning rate after the warm-up."""
        if self.run.budget.schedule == "cosine":
            return "cosine"
        return "wsd" if self.decay_steps else "constant"

    @property
    def learning_rate(self) -> float:
        """Peak of the schedule."""
        return self.run.budget.learning_rate

    @property
    def final_lr_ratio(self) -> float:
        """Where the schedule ends, as a share of the peak."""
        return 1.0 if self.schedule == "constant" else self.run.budget.final_lr_ratio

    @property
    def last_lr(self) -> float:
        """The learning rate that the schedule ends with."""
        return float(f"{self.learning_rate * self.final_lr_ratio:.6g}")

    @property
    def hf(self) -> Path:
        """Where the trainer leaves its model in the layout of Hugging Face."""
        return self.output / "hf"


@dataclass(frozen=True)
class PlanOptions:
    """What is given beside the study.

    Attributes:
        out: Folder of the plan; default: ``<run_dir>/plan/<trainer>``.
        references: Number of reference models at sampled mixtures.
        paths: Where the data of every dataset lies, with ``{dataset}`` for its name.
        data: Where the data of single datasets lies, by name.
        gpus: GPUs that one run is launched on.
        micro_batch: Sequences that a GPU holds at a time.
        force: Replace files that were changed by hand.
    """

    out: Path | None = None
    references: int = 0
    paths: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 1
    micro_batch: int = 1
    force: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What all runs of a plan share.

    Attributes:
        shape: The ``config.json`` of the model.
        dtype: Element type of the checkpoints: that of the base.
        tokenizer: Directory of the tokenizer.
        vocabulary: Number of token ids of the tokenizer.
        eos: Id that ends a document.
        sequence_length: Tokens of a sequence.
        batch_size: Sequences of an optimizer step, on all GPUs.
        micro_batch: Sequences that a GPU holds at a time.
        gpus: GPUs of a run.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are clipped to it.
        bf16: Whether to train in bfloat16.
        seed: Seed of weights and data.
        save_every: Steps between two checkpoints.
    """

    shape: Mapping[str, Any]
    dtype: str
    tokenizer: Path
    vocabulary: int
    eos: int
    sequence_length: int
    batch_size: int
    micro_batch: int
    gpus: int
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    seed: int
    save_every: int

    @property
    def accumulation(self) -> int:
        """Micro-batches of a step on each GPU."""
        return self.batch_size // (self.micro_batch * self.gpus)


def settings_of(run: PlannedRun, around: Surroundings) -> dict[str, Any]:
    """What scripts in Python are filled in with, whatever the trainer."""
    return {
        "tokenizer": str(around.tokenizer),
        "output": str(run.output),
        "start": str(run.start),
        "learning_rate": run.learning_rate,
        "warmup_steps": run.warmup_steps,
        "steps": run.steps,
        "micro_batch": around.micro_batch,
        "batch_size": around.batch_size,
        "sequence_length": around.sequence_length,
        "max_grad_norm": around.max_grad_norm,
        "weight_decay": around.weight_decay,
        "save_every": around.save_every,
    }


@dataclass(frozen=True)
class Trainer:
    """A framework to plan for.

    Attributes:
        title: Its name in sentences.
        data: What it reads, in words; ``None`` for texts.
        find: The paths of that format among the files of a dataset.
        write: The files of a run by name.
        commands: The shell lines that train a run and leave a Hugging Face checkpoint in ``hf``.
        kinds: Values of ``model_type`` that it can start from; ``None`` for all of transformers.
        schedules: What it can make of the learning rate after the warm-up.
        needs: What must be set in the environment, with what it is, by variable.
    """

    title: str
    write: Callable[[PlannedRun, Surroundings], Mapping[str, str]]
    commands: Callable[[PlannedRun, Surroundings], Sequence[str]]
    data: str | None = None
    find: Callable[[Sequence[str]], list[str]] = list
    kinds: Collection[str] | None = None
    schedules: Collection[Schedule] = ("cosine", "wsd", "constant")
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """A decoder of llama's kind, as trainers with models of their own ask for it.

    Attributes:
        kind: ``model_type``.
        hidden: Width.
        feed_forward: Width of the feed-forward layers.
        layers: Their number.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        vocabulary: Rows of the embedding.
        positions: Longest input.
        epsilon: Of the norms.
        rope_theta: Base of the rotary embedding.
        tied: Whether embedding and output share their weights.
    """

    kind: str
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    epsilon: float
    rope_theta: float
    tied: bool


def shape_of(config: Mapping[str, Any], title: str) -> Shape:
    """Read a ``config.json`` of llama's kind.

    Raises:
        ConfigError: If it has what a trainer of this name could not rebuild.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    unusual = {
        f"rope_type {kind!r}": kind != "default",
        "a sliding window": config.get("model_type") != "qwen2"
        and bool(config.get("sliding_window"))
        and bool(config.get("use_sliding_window", True)),
        "biases of attention": bool(config.get("attention_bias")),
        "biases of the feed-forward layers": bool(config.get("mlp_bias")),
        f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
    }
    for what, there in unusual.items():
        if there:
            raise ConfigError(
                f"a plan for {title} cannot rebuild a model with {what}; plan for hf or "
                "torchtitan, which take the model's code from transformers"
            )
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        kind=config["model_type"],
        hidden=hidden,
        feed_forward=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        epsilon=config.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
