"""Recipes: everything that determines a model's weights, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from optuna_demix._wording import shortened
from optuna_demix.training._job import Job, Run
from optuna_demix.training.data.corpus import Corpus


def recipe_of(
    job: Job, run: Run, corpora: Mapping[str, Corpus], base: str | None
) -> dict[str, Any]:
    """Everything that determines a model's weights, flat, without a base that is not known yet."""
    training, budget = job.training, run.budget
    recipe: dict[str, Any] = {
        "tokens": budget.tokens,
        "learning_rate": budget.learning_rate,
        "warmup_ratio": budget.warmup_ratio,
        "final_lr_ratio": budget.final_lr_ratio,
        "schedule": budget.schedule,
        "sequence_length": training.sequence_length,
        "batch_size": training.batch_size,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": training.bf16,
        "seed": training.seed,
        "tokenizer": job.vocabulary.digest,
    }
    if budget.schedule == "wsd":
        recipe["decay_ratio"] = budget.decay_ratio
        recipe["average"] = budget.average
    for name, share in run.shares.items():
        recipe[f"share of {name}"] = share
        recipe[f"text of {name}"] = corpora[name].digest
    if run.is_base:
        recipe["model"] = training.model
    elif base is not None:
        recipe["base"] = base
    return recipe


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two recipes, each in a few words."""
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) or (key == "base" and key not in new):
            continue
        if key in ("base", "tokenizer") or (
            key.startswith("text of ") and key in old and key in new
        ):
            changes.append(f"the {key} has changed")
        elif not key.startswith("text of "):  # added and dropped datasets show in their shares
            changes.append(f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}")
    return changes


def _shown(value: Any) -> str:
    return shortened("none" if value is None else json.dumps(value), 80)


def digest_of(value: Any) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
