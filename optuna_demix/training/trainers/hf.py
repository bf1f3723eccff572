"""transformers' own ``Trainer``: a file of settings for each run, and one script for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna_demix.training._schedule import schedule_arguments
from optuna_demix.training.trainers.runs import PlannedRun, Surroundings
from optuna_demix.training.trainers.scripts import script
from optuna_demix.training.trainers.shell import torchrun, words


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.json``, with ``TrainingArguments`` and sources, and ``train.py`` that reads it."""
    sources = {
        source.name: {
            "share": source.share,
            "load": dict(run.texts[source.name].load),
            "template": run.texts[source.name].template,
        }
        for source in run.sources
    }
    content = {
        "start": str(run.start),
        "tokenizer": str(around.tokenizer),
        "sequence_length": around.sequence_length,
        "sources": sources,
        "late_decay": None if run.schedule == "cosine" else _late_decay(run),
        "arguments": _arguments(run, around),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return {f"{run.slug}.json": text, "train.py": script("hf_train.py")}


def _late_decay(run: PlannedRun) -> dict[str, float]:
    """What the script makes of ``wsd``: transformers' own does not warm up from 0."""
    return {
        "warmup": run.warmup_steps,
        "steps": run.steps,
        "decay": run.decay_steps if run.schedule == "wsd" else 0,
        "final": run.final_lr_ratio,
    }


def _arguments(run: PlannedRun, around: Surroundings) -> dict[str, Any]:
    """Keyword arguments of ``TrainingArguments``, as ``optuna-demix train`` has them."""
    return {
        "output_dir": str(run.output),
        "max_steps": run.steps,
        "per_device_train_batch_size": around.micro_batch,
        "gradient_accumulation_steps": around.accumulation,
        **schedule_arguments(run.run),
        "weight_decay": around.weight_decay,
        "max_grad_norm": around.max_grad_norm,
        "bf16": around.bf16,
        "seed": around.seed,
        "save_strategy": "steps",
        "save_steps": around.save_every,
        "save_total_limit": 2,
        "logging_steps": max(1, min(50, run.steps // 20)),
        "report_to": "none",
    }


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Train; the script resumes from its newest checkpoint and saves the layout by itself."""
    return [words(*torchrun(around), "train.py", f"{run.slug}.json", run.hf)]
