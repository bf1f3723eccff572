"""OLMo-core 3: a Python script for each run, on its composable data; converted by its own maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna_demix.export import export
from optuna_demix.training.trainers.runs import (
    PlannedRun,
    Shape,
    Surroundings,
    settings_of,
    shape_of,
)
from optuna_demix.training.trainers.shell import torchrun, words

KINDS = ("llama", "olmo2", "qwen3")
"""What OLMo-core has maps from and to Hugging Face for, but for sliding windows and experts."""

_MAGIC = b"\x93NUMPY"  # OLMo-core reads the bytes as tokens, whatever the file is called


def find(files: Sequence[str]) -> list[str]:
    """Files of raw tokens: ``.npy`` as OLMo-core writes it and ``.bin``, without a header."""
    return [name for name in files if name.endswith((".npy", ".bin")) and not _has_header(name)]


def _has_header(name: str) -> bool:
    try:
        with open(name, "rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def write(run: PlannedRun, around: Surroundings) -> Mapping[str, str]:
    """``<run>.py``: the exported mixture, all settings, and training."""
    code = export(run.sources, "olmo-core-composable") + _SCRIPT.format(
        model=_model(shape_of(around.shape, "olmo-core")),
        hf=str(run.hf),
        **settings_of(run, around),
        rows=around.shape["vocab_size"],
        eos=around.eos,
        scheduler=f"ConstantWithWarmup(warmup={run.warmup_steps})"
        if run.schedule == "constant"
        else f"CosWithWarmup(warmup={run.warmup_steps}, alpha_f={run.final_lr_ratio!r})",
        precision="bfloat16" if around.bf16 else "float32",
        seed=around.seed,
    )
    return {f"{run.slug}.py": code}


def _model(shape: Shape) -> str:
    """Arguments of ``TransformerConfig.llama_like``, a line each."""
    reordered = shape.kind == "olmo2"
    values = {
        "d_model": shape.hidden,
        "vocab_size": shape.vocabulary,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "qk_norm": shape.kind in ("olmo2", "qwen3"),
        "use_head_qk_norm": shape.kind == "qwen3",
        "layer_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
    }
    lines = [f"        {name}={value!r},\n" for name, value in values.items()]
    block = "reordered_norm" if reordered else "default"
    lines.append(f"        block_name=TransformerBlockType.{block},\n")
    lines.append(
        f"        feed_forward=FeedForwardConfig(hidden_size={shape.feed_forward}, bias=False),\n"
    )
    return "".join(lines)


def commands(run: PlannedRun, around: Surroundings) -> Sequence[str]:
    """Train; the script starts from and leaves the layout of Hugging Face."""
    return [words(*torchrun(around), f"{run.slug}.py")]


_SCRIPT = '''

import torch
import torch.distributed.checkpoint.state_dict as dist_cp_sd
from olmo_core.config import DType
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.distributed.utils import barrier, get_rank
from olmo_core.nn.feed_forward import FeedForwardConfig
from olmo_core.nn.hf import convert_state_from_hf, convert_state_to_hf
from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig
from olmo_core.optim import AdamWConfig, ConstantWithWarmup, CosWithWarmup
from olmo_core.train import (
    Duration,
    TrainerConfig,
    prepare_training_environment,
    teardown_training_environment,
)
from olmo_core.train.callbacks import CheckpointerCallback
from olmo_core.train.train_module import (
    TransformerDataParallelConfig,
    TransformerTrainModuleConfig,
)
from olmo_core.utils import seed_all
from transformers import AutoModelForCausalLM

START = {start!r}
OUTPUT = {output!r}
HF = {hf!r}
TOKENIZER = TokenizerConfig(
    vocab_size={rows}, eos_token_id={eos}, pad_token_id={eos}, identifier={tokenizer!r}
)


def model_config() -> TransformerConfig:
    return TransformerConfig.llama_like(
{model}    )


def train_module_config() -> TransformerTrainModuleConfig:
    return TransformerTrainModuleConfig(
        rank_microbatch_size={micro_batch} * {sequence_length},  # in tokens
        max_sequence_length={sequence_length},
        optim=AdamWConfig(
            lr={learning_rate!r}, betas=(0.9, 0.95), weight_decay={weight_decay!r}
        ),
        dp_config=TransformerDataParallelConfig(
            name=DataParallelType.fsdp,
            param_dtype=DType.{precision},
            reduce_dtype=DType.float32,
        ),
        max_grad_norm={max_grad_norm!r},
        scheduler={scheduler},
    )


def trainer_config() -> TrainerConfig:
    checkpointer = CheckpointerCallback(save_interval={save_every}, max_checkpoints=2)
    return TrainerConfig(
        save_folder=OUTPUT,
        save_overwrite=True,
        max_duration=Duration.steps({steps}),
        callbacks={{"checkpointer": checkpointer}},
    )


def from_hf() -> dict:
    """The weights to start from, as OLMo-core names them."""
    hf = AutoModelForCausalLM.from_pretrained(START, dtype=torch.float32)
    return convert_state_from_hf(hf.config, hf.state_dict(), model_type=hf.config.model_type)


def save_hf(state: dict) -> None:
    """Save weights in the layout of Hugging Face."""
    hf = AutoModelForCausalLM.from_pretrained(START, dtype=torch.float32)
    converted = convert_state_to_hf(hf.config, state)
    hf.load_state_dict({{name: value.float() for name, value in converted.items()}})
    hf.save_pretrained(HF)


def main() -> None:
    seed_all({seed})
    model = model_config().build(init_device="meta")
    train_module = train_module_config().build(model)
    loader = data_loader(
        TOKENIZER, {sequence_length}, {batch_size} * {sequence_length}, f"{{OUTPUT}}/data"
    )
    trainer = trainer_config().build(train_module, loader)
    options = dist_cp_sd.StateDictOptions(full_state_dict=True, cpu_offload=True)
    if not trainer.maybe_load_checkpoint():
        dist_cp_sd.set_model_state_dict(train_module.model, from_hf(), options=options)
    trainer.fit()
    state = dist_cp_sd.get_model_state_dict(train_module.model, options=options)
    if get_rank() == 0:
        save_hf(state)
    barrier()


if __name__ == "__main__":
    prepare_training_environment(
        backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    )
    try:
        main()
    finally:
        teardown_training_environment()
'''
