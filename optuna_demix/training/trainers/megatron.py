"""Megatron-LM on Megatron core 0.16: arguments of ``pretrain_gpt.py`` and a blend for each run.

Checkpoints are converted from and to Hugging Face by Megatron-Bridge's ``AutoBridge``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna_demix.errors import ConfigError
from optuna_demix.export import export
from optuna_demix.training.trainers.runs import PlannedRun, Shape, Surroundings, shape_of
from optuna_demix.training.trainers.shell import torchrun, variable, words

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""What Megatron's GPT model can be told to be by arguments, and AutoBridge converts."""

LR_DECAY = {"cosine": "cosine", "wsd": "WSD", "constant": "constant"}
"""Names of schedules on Megatron core."""

CHECKOUT = "MEGATRON_LM"


def find(files: Sequence[str]) -> list[str]:
    """Prefixes of the pairs of ``.bin`` and ``.idx`` among files."""
    there = set(files)
    prefixes = {name.rpartition(".")[0] for name in files if name.endswith((".bin", ".idx"))}
    return sorted(
        prefix
        for prefix in prefixes
        if all(f"{prefix}{end}" in there or Path(f"{prefix}{end}").is_file() for end in _PAIR)
    )


_PAIR = (".bin", ".idx")


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.blend`` for ``--data-args-path`` and ``<run>.args``, an argument a line."""
    lines = [words(*argument) for argument in arguments(run, around)]
    return {
        f"{run.slug}.blend": export(run.sources, "megatron"),
        f"{run.slug}.args": "\n".join(lines) + "\n",
        "bridge.py": BRIDGE,
    }


def arguments(run: PlannedRun, around: Surroundings) -> list[tuple[str | int | float | Path, ...]]:
    """Arguments of ``pretrain_gpt.py``, each with its value."""
    train: list[tuple[str | int | float | Path, ...]] = [
        ("--seq-length", around.sequence_length),
        ("--micro-batch-size", around.micro_batch),
        ("--global-batch-size", around.batch_size),
        ("--train-iters", run.steps),
        ("--lr", run.learning_rate),
        ("--min-lr", run.last_lr),
        ("--lr-decay-style", LR_DECAY[run.schedule]),
        ("--lr-decay-iters", run.steps),
        ("--lr-warmup-iters", run.warmup_steps),
        ("--weight-decay", around.weight_decay),
        ("--adam-beta1", 0.9),
        ("--adam-beta2", 0.95),
        ("--clip-grad", around.max_grad_norm),
        ("--seed", around.seed + 1),  # must be positive
        ("--tokenizer-type", "HuggingFaceTokenizer"),
        ("--tokenizer-model", around.tokenizer),
        ("--data-args-path", f"{run.slug}.blend"),
        ("--split", "100,0,0"),
        ("--eval-iters", 0),
        ("--pretrained-checkpoint", run.output / "start"),
        ("--load", run.output),
        ("--save", run.output),
        ("--save-interval", around.save_every),
        ("--ckpt-format", "torch_dist"),
        ("--use-distributed-optimizer",),
        ("--log-interval", max(1, min(50, run.steps // 20))),
    ]
    if run.schedule == "wsd":
        train += [
            ("--lr-wsd-decay-style", "minus_sqrt"),
            ("--lr-wsd-decay-iters", run.decay_steps),
        ]
    if around.bf16:
        train.append(("--bf16",))
    return [*_model(shape_of(around.shape, "megatron")), *train]


def _model(shape: Shape) -> list[tuple[str | int | float, ...]]:
    """The model's arguments."""
    if not math.isclose(shape.rope_theta, round(shape.rope_theta)):
        raise ConfigError(
            f"rope_theta {shape.rope_theta}: Megatron-LM takes whole numbers; plan for "
            "megatron-bridge"
        )
    model: list[tuple[str | int | float, ...]] = [
        ("--num-layers", shape.layers),
        ("--hidden-size", shape.hidden),
        ("--ffn-hidden-size", shape.feed_forward),
        ("--num-attention-heads", shape.heads),
        ("--kv-channels", shape.head_dim),
        ("--max-position-embeddings", shape.positions),
        ("--padded-vocab-size", shape.vocabulary),
        ("--swiglu",),
        ("--disable-bias-linear",),
        ("--normalization", "RMSNorm"),
        ("--norm-epsilon", shape.epsilon),
        ("--position-embedding-type", "rope"),
        ("--rotary-base", round(shape.rope_theta)),
        ("--attention-dropout", 0.0),
        ("--hidden-dropout", 0.0),
    ]
    if shape.kv_heads != shape.heads:
        model += [("--group-query-attention",), ("--num-query-groups", shape.kv_heads)]
    if not shape.tied:
        model.append(("--untie-embeddings-and-output-weights",))
    if shape.kind == "qwen2":
        model.append(("--add-qkv-bias",))
    if shape.kind == "qwen3":
        model.append(("--qk-layernorm",))
    return model


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Bring the base to Megatron, train, and bring the result back."""
    launch = words(*torchrun(around), variable(CHECKOUT, "/pretrain_gpt.py"))
    return [
        words("python", "bridge.py", "import", run.start, run.output / "start"),
        f"xargs {launch} < {words(f'{run.slug}.args')}",
        words("python", "bridge.py", "export", run.start, run.output, run.hf),
    ]


BRIDGE = '''\
"""Brings checkpoints from Hugging Face to Megatron and back, by Megatron-Bridge."""

import sys
from pathlib import Path

from megatron.bridge import AutoBridge

task, *paths = sys.argv[1:]
if task == "import":
    source, target = paths
    if not Path(target).exists():
        AutoBridge.import_ckpt(source, target)
else:
    like, source, target = paths
    AutoBridge.from_hf_pretrained(like).export_ckpt(source, target)
'''
