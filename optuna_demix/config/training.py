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
    """One kind of training run: how many tokens, at which learning rate.

    Attributes:
        tokens: Training tokens.
        learning_rate: Peak of the cosine schedule.
        warmup_ratio: Share of the steps that warm up linearly.
        final_lr_ratio: Where the cosine ends, as a share of the peak (the paper: 0.2).
        composition: Data shares, ``{dataset: share}``; for the base model only.
    """

    tokens: TokenCount
    learning_rate: PositiveNumber
    warmup_ratio: Share = 0.02
    final_lr_ratio: Share = 0.2
    composition: dict[str, Share] | None = None


class TrainingConfig(StrictModel):
    """How ``optuna-demix train`` makes base, components and references.

    Attributes:
        model: Keyword arguments of ``transformers.AutoConfig.for_model`` for a base trained from
            scratch; ``model_type`` is required. Without it the study's ``base`` must exist.
        tokenizer: Directory of the tokenizer.
        sequence_length: Tokens of one training sequence.
        batch_size: Sequences of one optimizer step.
        base: The base model's run; without it an existing base is continued.
        component: The run of every component.
        reference: The run of every reference; default: as the components.
    """

    model: dict[str, Any] | None = None
    tokenizer: str
    sequence_length: PositiveCount = 1024
    batch_size: PositiveCount = 32
    weight_decay: NonNegativeNumber = 0.1
    max_grad_norm: PositiveNumber = 1.0
    bf16: bool = False
    seed: Seed = 0
    save_every: PositiveCount = 500
    base: BudgetConfig | None = None
    component: BudgetConfig
    reference: BudgetConfig | None = None

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
