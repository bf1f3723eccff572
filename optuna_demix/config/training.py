"""Training of the base and the components."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from optuna_demix.config._base import (
    NonNegativeNumber,
    PositiveCount,
    PositiveNumber,
    Seed,
    Share,
    StrictModel,
    TokenCount,
)


class BudgetConfig(StrictModel):
    """A training run, of base, component or reference: how many tokens, at which learning rate."""

    tokens: TokenCount
    """Tokens to train on, repetitions counted."""
    learning_rate: PositiveNumber
    """Peak of the schedule."""
    warmup_ratio: Share = 0.02
    """Share of the steps that warm up linearly."""
    final_lr_ratio: Share = 0.2
    """Where the schedule ends, as a share of the peak (the paper: 0.2)."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """``cosine``, or ``wsd``: warm up, stay at the peak, and decay as one minus a square root over
    the last ``decay_ratio`` of the steps."""
    decay_ratio: Share = 0.2
    """Share of the steps, the last ones, in which ``wsd`` decays; with 0 it never does."""
    average: Annotated[PositiveCount, Field(ge=2)] | None = None
    """Instead of decaying, take the mean, in float32, of this many snapshots, spread evenly over
    the last ``decay_ratio`` of the steps (WSM, arXiv:2507.17634)."""
    composition: dict[str, Share] | None = None
    """Data shares, ``{dataset: share}``; for the base model only."""

    @model_validator(mode="after")
    def _one_schedule(self) -> BudgetConfig:
        if self.schedule != "wsd":
            for field in ("decay_ratio", "average"):
                if field in self.model_fields_set:
                    raise ValueError(f"'{field}' belongs to 'schedule: wsd'; add it or remove it")
        elif self.warmup_ratio + self.decay_ratio > 1.0:
            raise ValueError("'warmup_ratio' and 'decay_ratio' sum to more than 1; lower one")
        return self


class TrainingConfig(StrictModel):
    """How ``optuna-demix train`` makes base, components and references."""

    model: dict[str, Any] | None = None
    """Keyword arguments of ``transformers.AutoConfig.for_model`` for a base trained from scratch;
    ``model_type`` is required. Without it the study's ``base`` must exist."""
    tokenizer: str
    """Directory of the tokenizer."""
    sequence_length: PositiveCount = 1024
    """Tokens of one training sequence."""
    batch_size: PositiveCount = 32
    """Sequences of one optimizer step, those of all processes together."""
    weight_decay: NonNegativeNumber = 0.1
    """Weight decay of AdamW."""
    max_grad_norm: PositiveNumber = 1.0
    """Gradients are clipped to this norm."""
    bf16: bool = False
    """Compute in bfloat16; weights and optimizer states stay float32."""
    sharding: Literal["none", "full"] = "none"
    """``full`` spreads weights, gradients and optimizer states over the processes of ``torchrun``
    (FSDP2), for models that do not fit into one GPU; with ``none`` each process has them all."""
    checkpoints: Literal["sharded", "full"] = "sharded"
    """With ``sharding: full``, whether each process writes its part of a checkpoint or the first
    one writes it whole. Finished models are always whole."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of each layer and compute the rest again in the backward pass: less
    memory, about a third more time."""
    compile: bool = False
    """Compile the model with ``torch.compile``; with ``sharding: full`` each layer by itself."""
    seed: Seed = 0
    """Seed of initial weights and of the order of the data."""
    save_every: PositiveCount = 500
    """Optimizer steps between two checkpoints, from which an interrupted run goes on."""
    base: BudgetConfig | None = None
    """The base model's run; without it an existing base is continued."""
    component: BudgetConfig
    """The run of every component."""
    reference: BudgetConfig | None = None
    """The run of every reference; default: as the components."""

    @field_validator("model")
    @classmethod
    def _plain_model(cls, model: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            json.dumps(model, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "must hold text, finite numbers, true, false, lists and mappings only"
            ) from None
        return model
