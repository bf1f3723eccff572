"""torchtitan 0.3: a Python module for each run, on its backend for models of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna_demix.export import export
from optuna_demix.training.trainers.runs import PlannedRun, Surroundings, TextFiles, settings_of
from optuna_demix.training.trainers.shell import torchrun, words


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.py``: the exported data loader, and ``config()`` for ``--module <run>``."""
    texts = {name.lower(): run.texts[name] for name in run.texts}
    entries = "".join(f"    {name!r}: {_entry(found)!r},\n" for name, found in texts.items())
    code = export(run.sources, "torchtitan") + _CONFIG.format(
        entries=entries,
        name=run.name,
        **settings_of(run, around),
        final_lr_ratio=run.final_lr_ratio,
        decay_ratio=None if run.schedule == "cosine" else run.decay_steps / run.steps,
        decay_type="cosine" if run.schedule == "cosine" else "sqrt",
        precision="bfloat16" if around.bf16 else "float32",
        dtype=around.dtype,
        seed=around.seed,
    )
    return {f"{run.slug}.py": code}


def _entry(found: TextFiles) -> tuple[dict[str, object], str]:
    return dict(found.load), found.template


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Train; the last checkpoint is saved in the layout of Hugging Face."""
    last = run.output / "checkpoint" / f"step-{run.steps}"
    launch = [*torchrun(around), "-m", "torchtitan.train", "--module", run.slug]
    return [
        f"PYTHONPATH=. {words(*launch, '--config', 'config')}",
        words("ln", "-sfn", last, run.hf),
    ]


_CONFIG = '''
# What load_dataset takes for each source, and the template of its text.
FILES = {{
{entries}}}


def _load(files: dict, path: str):
    return load_dataset(**{{"split": "train", **files}}, streaming=True)


for name, (files, template) in FILES.items():
    loader = partial(_load, files)
    DATASETS[name] = DatasetConfig(path=name, loader=loader, sample_processor=template.format_map)


def config():
    """{name}."""
    from torchtitan.components.checkpoint import CheckpointManager
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
    from torchtitan.config import DebugConfig, TrainingConfig
    from torchtitan.experiments.transformers_modeling_backend import model_registry
    from torchtitan.experiments.transformers_modeling_backend.configs import (
        TransformersBackendConfig,
    )

    return TransformersBackendConfig(
        loss=CrossEntropyLoss.Config(),
        hf_assets_path={tokenizer!r},
        hf_model={start!r},
        model_spec=model_registry("full"),
        dump_folder={output!r},
        optimizer=default_adamw(lr={learning_rate!r}, weight_decay={weight_decay!r}),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps={warmup_steps},
            decay_ratio={decay_ratio!r},
            decay_type={decay_type!r},
            min_lr_factor={final_lr_ratio!r},
        ),
        training=TrainingConfig(
            local_batch_size={micro_batch},
            global_batch_size={batch_size},
            seq_len={sequence_length},
            max_norm={max_grad_norm!r},
            steps={steps},
            mixed_precision_param={precision!r},
        ),
        dataloader=dataloader(seed={seed}),
        checkpoint=CheckpointManager.Config(
            enable=True,
            interval={save_every},
            initial_load_path={start!r},
            initial_load_in_hf=True,
            last_save_in_hf=True,
            export_dtype={dtype!r},
            keep_latest_k=2,
        ),
        debug=DebugConfig(seed={seed}),
    )
'''
