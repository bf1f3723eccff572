"""Training of the base and the components."""

from __future__ import annotations

import json
from typing import Any

from pydantic import field_validator

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
    """Peak of the cosine schedule."""
    warmup_ratio: Share = 0.02
    """Share of the steps that warm up linearly."""
    final_lr_ratio: Share = 0.2
    """Where the cosine ends, as a share of the peak (the paper: 0.2)."""
    composition: dict[str, Share] | None = None
    """Data shares, ``{dataset: share}``; for the base model only."""


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
    """Train in bfloat16 mixed precision."""
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
