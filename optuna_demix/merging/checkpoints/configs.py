"""Whether configurations of components describe one model: what reaches its forward pass."""

from __future__ import annotations

import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from optuna_demix._wording import one_line, shortened
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.checkpoint import VOLATILE_FIELDS
from optuna_demix.merging.checkpoints.fitting import ONE_BASE_REMEDY
from optuna_demix.merging.checkpoints.skeleton import Skeleton, build_skeleton, load_config
from optuna_demix.merging.checkpoints.tokenization import CHOOSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint

# Fields that models name but that change neither the parameters nor what is computed from them
# outside training.
_HARMLESS = VOLATILE_FIELDS | {
    "_attn_implementation_autoset",
    "architectures",  # compared first, with its own message
    "bos_token_id",  # generation has its own comparison
    "dtype",  # the tensors themselves are compared
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "return_dict",
    "router_aux_loss_coef",
    "router_z_loss_coef",
    "torch_dtype",
    "use_cache",
}
_DROPOUT = re.compile(r"dropout|_pdrop$|^layerdrop$")  # off outside training
# What all models read configurations through, beside their own modules.
_SHARED_MODULES = ("transformers.modeling_rope_utils", "transformers.masking_utils")
# Fields of a generation config that lm-eval always sets, or that no token depends on.
_NO_GENERATION = VOLATILE_FIELDS | {
    "_from_model_config",
    "bos_token_id",
    "do_sample",
    "max_length",
    "max_new_tokens",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "temperature",
    "use_cache",
}


def common_model(
    checkpoints: Sequence[Checkpoint], *, trust_remote_code: bool
) -> tuple[Skeleton, list[Any]]:
    """Check that all configs describe one model; return its skeleton and the configs.

    Raises:
        ComponentError: Naming the first field that says otherwise.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        for field in ("model_type", "architectures"):
            ours, theirs = first.config.get(field), other.config.get(field)
            if ours != theirs:
                raise _other_value(field, ours, theirs, first, other)
    configs = [
        load_config(each.model_path, each.label, trust_remote_code=trust_remote_code)
        for each in checkpoints
    ]
    skeleton = build_skeleton(
        configs[0], first.label, first.config_path, trust_remote_code=trust_remote_code
    )
    fields = _relevant(configs[0].to_dict())
    for other, config in zip(checkpoints[1:], configs[1:], strict=True):
        found = _relevant(config.to_dict())
        for field in sorted({*fields, *found}):
            ours, theirs = fields.get(field), found.get(field)
            if ours != theirs and _may_be_read(field, skeleton.model_class):
                raise _other_value(field, ours, theirs, first, other)
    return skeleton, configs


def generation_settings(checkpoint: Checkpoint, config: Any) -> dict[str, Any]:
    """Return what decides the text that a checkpoint generates, beside its weights.

    Args:
        checkpoint: The checkpoint.
        config: Its config, as transformers loads it.

    Raises:
        ComponentError: If its ``generation_config.json`` is damaged.
    """
    file = checkpoint.model_path / "generation_config.json"
    try:
        settings = (
            GenerationConfig.from_pretrained(checkpoint.model_path)
            if file.is_file()
            else GenerationConfig.from_model_config(config)
        )
    except Exception as error:  # whatever transformers raises
        remedy = "correct the file or remove it"
        raise problem(checkpoint.label, f"refused ({one_line(error)})", remedy, file=file) from (
            error
        )
    known = vars(GenerationConfig()).keys() - _NO_GENERATION  # type: ignore[no-untyped-call]
    found = {key: value for key, value in settings.to_diff_dict().items() if key in known}
    ends = found.get("eos_token_id")
    if isinstance(ends, list):
        found["eos_token_id"] = ends[0] if len(set(ends)) == 1 else sorted(set(ends))
    return found


def check_same_generation(
    first: Checkpoint, ours: dict[str, Any], other: Checkpoint, theirs: dict[str, Any]
) -> None:
    """Refuse two components that would generate differently.

    Raises:
        ComponentError: Naming the first setting that differs.
    """
    for key in sorted({*ours, *theirs}, key=lambda key: (key != "eos_token_id", key)):
        if ours.get(key) != theirs.get(key):
            what = (
                f"generates text with {key} {shortened(repr(theirs.get(key)), 60)}, but "
                f"{shortened(repr(ours.get(key)), 60)} in {first.label} ({first.model_path})"
            )
            raise problem(other.label, what, CHOOSE, file=other.model_path)


def _relevant(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that matter, in nested configs too."""
    return {
        name: _relevant(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name not in _HARMLESS and _DROPOUT.search(name) is None
    }


def _may_be_read(field: str, model_class: type[Any]) -> bool:
    """Whether a model's code names a field; trainers leave others in configs."""
    modules = {each.__module__ for each in model_class.__mro__ if hasattr(each, "config_class")}
    config_class = getattr(model_class, "config_class", None)
    modules.add(getattr(config_class, "__module__", model_class.__module__))
    for name in sorted(modules | {*_SHARED_MODULES}):
        try:
            source = inspect.getsource(sys.modules[name])
        except (KeyError, OSError, TypeError):
            return True  # cannot be told
        if name.startswith("transformers_modules."):  # may import others of the model's own
            return True
        if re.search(rf"\b{re.escape(field)}\b", source):
            return True
    return False


def _other_value(field: str, ours: Any, theirs: Any, first: Checkpoint, other: Checkpoint) -> Any:
    what = f"field {field!r} is {theirs!r}, but {ours!r} in {first.label} ({first.config_path})"
    return problem(other.label, what, ONE_BASE_REMEDY, file=other.config_path)
