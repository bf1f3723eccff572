"""Megatron-Bridge: a Python script for each run; ``AutoBridge`` makes and converts models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna_demix.export import export
from optuna_demix.training.trainers.megatron import BRIDGE, LR_DECAY
from optuna_demix.training.trainers.runs import PlannedRun, Surroundings, settings_of
from optuna_demix.training.trainers.shell import torchrun, words


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.py`` with ``config()``, and its blend."""
    code = _SCRIPT.format(
        name=run.name,
        blend=f"{run.slug}.blend.json",
        **settings_of(run, around),
        converted=str(run.output / "start"),
        last_lr=run.last_lr,
        lr_decay=LR_DECAY[run.schedule],
        wsd_decay=run.decay_steps if run.schedule == "wsd" else None,
        bf16=around.bf16,
        precision="bf16_mixed" if around.bf16 else None,
        seed=around.seed + 1,  # must be positive
    )
    return {
        f"{run.slug}.py": code,
        f"{run.slug}.blend.json": export(run.sources, "megatron-bridge"),
        "bridge.py": BRIDGE,
    }


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Bring the base to Megatron, train, and bring the result back."""
    return [
        words("python", "bridge.py", "import", run.start, run.output / "start"),
        words(*torchrun(around), f"{run.slug}.py"),
        words("python", "bridge.py", "export", run.start, run.output, run.hf),
    ]


_SCRIPT = '''\
"""{name}."""

import json
from pathlib import Path

from megatron.bridge import AutoBridge
from megatron.bridge.training.config import (
    CheckpointConfig,
    ConfigContainer,
    DistributedDataParallelConfig,
    GPTDatasetConfig,
    LoggerConfig,
    OptimizerConfig,
    RNGConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainingConfig,
)
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain
from megatron.core.datasets.utils import get_blend_from_list


def blends() -> list:
    """Those of training, validation and test."""
    splits = json.loads(Path(__file__).with_name({blend!r}).read_text())
    return [get_blend_from_list(splits[name]) for name in ("train", "valid", "test")]


def config(model=None) -> ConfigContainer:
    """All settings; the model is that of the config.json unless one is given."""
    if model is None:
        model = AutoBridge.from_hf_pretrained({start!r}).to_megatron_provider(load_weights=False)
        model.seq_length = {sequence_length}
    settings = ConfigContainer(
        model=model,
        train=TrainingConfig(
            train_iters={steps},
            global_batch_size={batch_size},
            micro_batch_size={micro_batch},
        ),
        optimizer=OptimizerConfig(
            optimizer="adam",
            lr={learning_rate!r},
            min_lr={last_lr!r},
            weight_decay={weight_decay!r},
            adam_beta1=0.9,
            adam_beta2=0.95,
            clip_grad={max_grad_norm!r},
            bf16={bf16!r},
            use_distributed_optimizer=True,
        ),
        scheduler=SchedulerConfig(
            lr_decay_style={lr_decay!r},
            lr_wsd_decay_style="minus_sqrt",
            lr_wsd_decay_iters={wsd_decay!r},
            lr_decay_iters={steps},
            lr_warmup_iters={warmup_steps},
            start_weight_decay={weight_decay!r},
            end_weight_decay={weight_decay!r},
        ),
        dataset=GPTDatasetConfig(
            random_seed={seed},
            reset_attention_mask=False,
            reset_position_ids=False,
            eod_mask_loss=False,
            seq_length={sequence_length},
            blend_per_split=blends(),
            dataloader_type="single",
        ),
        ddp=DistributedDataParallelConfig(
            use_distributed_optimizer=True, grad_reduce_in_fp32=True
        ),
        checkpoint=CheckpointConfig(
            save={output!r},
            load={output!r},
            save_interval={save_every},
            pretrained_checkpoint={converted!r},
            ckpt_format="torch_dist",
        ),
        tokenizer=TokenizerConfig(
            tokenizer_type="HuggingFaceTokenizer", tokenizer_model={tokenizer!r}
        ),
        logger=LoggerConfig(),
        rng=RNGConfig(seed={seed}),
        mixed_precision={precision!r},
    )
    getattr(settings, "validation", settings.train).eval_iters = 0  # since 0.4 its own section
    return settings


if __name__ == "__main__":
    pretrain(config(), forward_step)
'''
