"""The model a run starts from: new from the study's configuration, or the base."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from optuna_demix._wording import last_line, unknown_name
from optuna_demix.errors import ConfigError
from optuna_demix.training._job import Job, Run

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


# Fields of older configurations which transformers still turns into rope parameters.
_LEGACY_FIELDS = (
    "partial_rotary_factor",
    "rope_scaling",
    "rope_theta",
    "rotary_emb_base",
    "rotary_pct",
)


def scratch_config(job: Job) -> PreTrainedConfig:
    """Configuration of the base from ``training.model``, checked by building it without memory."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    field = f"{job.config.source}: training.model"
    given = dict(job.training.model or {})
    kind = given.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{field}: model_type is missing; give one, such as llama")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{field}: {unknown_name(kind, list(CONFIG_MAPPING), 'model_type', 0)}")
    config_class = CONFIG_MAPPING[kind]
    fields = {f.name for f in dataclasses.fields(config_class)}
    fields |= set(config_class.attribute_map) | set(_LEGACY_FIELDS)
    for name in given:
        if name not in fields:
            raise ConfigError(
                f"{field}: {unknown_name(name, sorted(fields), f'field of {kind}', 0)}"
            )
    vocabulary = job.vocabulary
    filled = {
        "vocab_size": vocabulary.size,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    try:
        config = AutoConfig.for_model(kind, **{**filled, **given})
        with torch.device("meta"):
            causal_models().from_config(config)
    except Exception as error:  # each architecture has its own way to complain
        raise ConfigError(f"{field}: {last_line(error)}") from None
    _check_fit(job, config, field)
    return config


def _check_fit(job: Job, config: PreTrainedConfig, field: str) -> None:
    text = config.get_text_config()
    if text.vocab_size < job.vocabulary.size:
        raise ConfigError(
            f"{field}: vocab_size {text.vocab_size:,} is less than the {job.vocabulary.size:,} "
            f"tokens of {job.vocabulary.path}"
        )
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < job.block_tokens:
        raise ConfigError(
            f"{job.config.source}: training.sequence_length: {job.block_tokens} is more than the "
            f"model's max_position_embeddings, {positions}; lower it"
        )


def start_model(job: Job, run: Run) -> tuple[PreTrainedModel, Any]:
    """The model a run starts from, in float32, and the dtype in which it will be kept."""
    import torch
    from transformers import set_seed

    set_seed(job.training.seed)
    if run.is_base:
        return causal_models().from_config(scratch_config(job)), torch.float32
    path = job.config.base_path
    try:
        model = causal_models().from_pretrained(
            str(path),
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # a damaged file, another architecture, a missing tensor
        raise ConfigError(f"{path}: cannot be loaded as the base ({last_line(error)})") from None
    _check_fit(job, model.config, str(path))
    dtype = model.dtype
    return model.float(), dtype


def causal_models() -> Any:
    """Transformers' class of causal language models, without types of its own."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM
