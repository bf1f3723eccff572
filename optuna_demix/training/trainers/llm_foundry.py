"""LLM Foundry 0.22: its YAML for each run; the callback ``hf_checkpointer`` converts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optuna_demix.export import export
from optuna_demix.training.trainers.runs import PlannedRun, Surroundings
from optuna_demix.training.trainers.shell import variable, words

CHECKOUT = "LLM_FOUNDRY"


def find(files: Sequence[str]) -> list[str]:
    """Folders of MDS shards: those with an ``index.json``."""
    folders = {name if Path(name).is_dir() else str(Path(name).parent) for name in files}
    return sorted(folder for folder in folders if Path(folder, "index.json").is_file())


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.yaml`` for ``scripts/train/train.py``."""
    text = yaml.safe_dump(_content(run, around), sort_keys=False, allow_unicode=True, width=1000)
    return {f"{run.slug}.yaml": text}


def _content(run: PlannedRun, around: Surroundings) -> dict[str, Any]:
    streams = yaml.safe_load(export(run.sources, "mosaicml"))["streams"]
    content = {
        "max_seq_len": around.sequence_length,
        "seed": around.seed,
        "run_name": run.slug,
        "model": {
            "name": "hf_causal_lm",
            "pretrained": True,
            "pretrained_model_name_or_path": str(run.start),
            "init_device": "mixed" if around.gpus > 1 else "cpu",
        },
        "tokenizer": {
            "name": str(around.tokenizer),
            "kwargs": {"model_max_length": around.sequence_length},
        },
        "train_loader": {
            "name": "text",
            "dataset": {
                "streams": {name: _stream(stream) for name, stream in streams.items()},
                "max_seq_len": around.sequence_length,
                "shuffle": True,
                "shuffle_seed": around.seed,
            },
            "drop_last": True,
            "num_workers": 8,
        },
        "optimizer": {
            "name": "decoupled_adamw",
            "lr": run.learning_rate,
            "betas": [0.9, 0.95],
            "eps": 1e-8,
            # Decoupled: not multiplied by the learning rate, as AdamW's is.
            "weight_decay": float(f"{around.weight_decay * run.learning_rate:.6g}"),
        },
        "scheduler": _scheduler(run),
        "algorithms": {
            "gradient_clipping": {
                "clipping_type": "norm",
                "clipping_threshold": around.max_grad_norm,
            }
        },
        "max_duration": f"{run.steps}ba",
        "global_train_batch_size": around.batch_size,
        "device_train_microbatch_size": around.micro_batch,
        "device_eval_batch_size": around.micro_batch,
        "eval_interval": 0,
        "precision": "amp_bf16" if around.bf16 else "fp32",
        "save_folder": str(run.output),
        "save_interval": f"{around.save_every}ba",
        "save_num_checkpoints_to_keep": 2,
        "autoresume": True,
        "callbacks": {
            "hf_checkpointer": {
                "save_folder": str(run.output),
                "save_interval": f"{run.steps}ba",
                "precision": around.dtype,
            }
        },
    }
    if around.gpus > 1:
        content["fsdp_config"] = {"sharding_strategy": "FULL_SHARD", "mixed_precision": "PURE"}
    return content


def _scheduler(run: PlannedRun) -> dict[str, Any]:
    warmup = {"t_warmup": f"{run.warmup_steps}ba"}
    if run.schedule == "constant":
        return {"name": "constant_with_warmup", **warmup}
    return {"name": "cosine_with_warmup", **warmup, "alpha_f": run.final_lr_ratio}


def _stream(stream: dict[str, Any]) -> dict[str, Any]:
    """A local folder is read where it lies: as ``remote`` it would be copied first."""
    if "://" in stream["remote"]:
        return {**stream, "split": None}
    return {"local": stream["remote"], "split": None, "proportion": stream["proportion"]}


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Train; the callback leaves the layout of Hugging Face after the last batch."""
    script = variable(CHECKOUT, "/scripts/train/train.py")
    last = run.output / "huggingface" / f"ba{run.steps}"
    return [
        words("composer", "-n", around.gpus, script, f"{run.slug}.yaml"),
        words("ln", "-sfn", last, run.hf),
    ]
