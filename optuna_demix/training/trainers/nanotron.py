"""nanotron: its YAML for each run; converted by the scripts of its ``examples/llama``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optuna_demix.export import export
from optuna_demix.training.trainers.runs import PlannedRun, Shape, Surroundings, shape_of
from optuna_demix.training.trainers.shell import torchrun, variable, words

KINDS = ("llama",)
"""What the scripts that convert can read and write."""

CHECKOUT = "NANOTRON"
_CONVERT = ("torchrun", "--nproc-per-node", 1, "-m")


def find(files: Sequence[str]) -> list[str]:
    """Folders of ``.ds`` files, as ``datatrove`` tokenizes."""
    return sorted({str(Path(name).parent) for name in files if name.endswith(".ds")})


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.yaml`` for ``run_train.py``."""
    content = _content(run, around)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return {f"{run.slug}.yaml": text}


def _content(run: PlannedRun, around: Surroundings) -> dict[str, Any]:
    dataset = yaml.safe_load(export(run.sources, "nanotron"))["dataset"]
    tokenizer, size = _metadata(dataset["dataset_folder"])
    if tokenizer is None:
        tokenizer, size = str(around.tokenizer), 2 if around.vocabulary < 1 << 16 else 4
    shape = shape_of(around.shape, "nanotron")
    dataset |= {
        "tokenizer_name": tokenizer,
        "token_size_in_bytes": size,
        "vocab_size": shape.vocabulary,
    }
    data = {"dataset": dataset, "num_loading_workers": 1, "seed": around.seed}
    return {
        "general": {"project": "demix", "run": run.slug, "seed": around.seed},
        "parallelism": {"dp": around.gpus, "pp": 1, "tp": 1},
        "model": {
            "model_config": _model(shape),
            "init_method": {"path": str(run.output / "start")},
            "dtype": "bfloat16" if around.bf16 else "float32",
        },
        "tokenizer": {"tokenizer_name_or_path": tokenizer},
        "checkpoints": {
            "checkpoints_path": str(run.output),
            "checkpoint_interval": around.save_every,
            "save_final_state": True,
        },
        "tokens": {
            "sequence_length": around.sequence_length,
            "train_steps": run.steps,
            "micro_batch_size": around.micro_batch,
            "batch_accumulation_per_replica": around.accumulation,
        },
        "optimizer": {
            "optimizer_factory": {
                "name": "adamW",
                "adam_beta1": 0.9,
                "adam_beta2": 0.95,
                "adam_eps": 1e-8,
                "torch_adam_is_fused": True,
            },
            "zero_stage": 1,
            "weight_decay": around.weight_decay,
            "clip_grad": around.max_grad_norm,
            "accumulate_grad_in_fp32": True,
            "learning_rate_scheduler": {
                "learning_rate": run.learning_rate,
                "lr_warmup_steps": run.warmup_steps,
                "lr_warmup_style": "linear",
                "lr_decay_style": "1-sqrt" if run.schedule == "wsd" else "cosine",
                "lr_decay_starting_step": run.steps - run.decay_steps,
                "lr_decay_steps": max(run.decay_steps, 1),
                "min_decay_lr": run.last_lr,
            },
        },
        "data_stages": [{"name": run.slug, "start_training_step": 1, "data": data}],
    }


def _model(shape: Shape) -> dict[str, Any]:
    return {
        "is_llama_config": True,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_theta,
        "rope_interleaved": False,
        "tie_word_embeddings": shape.tied,
    }


def _metadata(folders: Sequence[str]) -> tuple[str | None, int]:
    """Tokenizer and bytes of a token that the first folder names: nanotron wants the same name."""
    for folder in folders:
        for file in sorted(Path(folder).glob("*.metadata")):
            with file.open(encoding="utf-8") as stream:
                name, bar, size = stream.readline().strip().rpartition("|")
            if bar and size.isdigit():
                return name, int(size)
    return None, 0


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Bring the base to nanotron, train, and bring the result back."""
    start, last = run.output / "start", run.output / str(run.steps)
    change = f"cd {words(variable(CHECKOUT))}"
    bring = words(
        *_CONVERT,
        "examples.llama.convert_hf_to_nanotron",
        f"--checkpoint_path={run.start}",
        f"--save_path={start}",
    )
    back = words(
        *_CONVERT,
        "examples.llama.convert_nanotron_to_hf",
        f"--checkpoint_path={last}",
        f"--save_path={run.hf}",
        f"--tokenizer_name={around.tokenizer}",
    )
    launch = words(
        *torchrun(around), variable(CHECKOUT, "/run_train.py"), "--config-file", f"{run.slug}.yaml"
    )
    return [f"[ -e {words(start)} ] || ({change} && {bring})", launch, f"({change} && {back})"]
