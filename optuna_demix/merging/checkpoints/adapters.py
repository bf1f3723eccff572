"""LoRA adapters as PEFT saves them: checkpoints whose tensors are the base's plus a product.

``W = W0 + s · B @ A`` (arXiv 2106.09685), computed in float32 where a tensor is read, so that
nothing downstream can tell an adapter from a whole model. Only what PEFT's ``merge_and_unload``
would do in the same way is accepted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.adapted_tensor import Adapted, Factors
from optuna_demix.merging.checkpoints.checkpoint import (
    Checkpoint,
    file_signature,
    hash_tensors,
    read_json,
)
from optuna_demix.merging.checkpoints.safetensors import TensorEntry, read_header
from optuna_demix.merging.checkpoints.tokenizer_files import vocabulary_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_demix.errors import ComponentError
    from optuna_demix.merging.checkpoints.fitting import Component
    from optuna_demix.merging.checkpoints.skeleton import Skeleton

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Fields that change nothing of a trained adapter's product.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",  # biases are saved whole, like modules
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_version",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_USED = frozenset(
    {
        "alpha_pattern",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)
# Ways to begin that leave the base as it is; others take something out of it.
_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
_PREFIX = "base_model.model."
# Modules that PEFT puts around the model's own.
_WRAPPERS = (".base_layer.", ".modules_to_save.")
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?$"
)
_REMEDY = "merge it into its base model (merge_and_unload), save that and give its path"
_AGAIN = "save or download the adapter again"


@dataclass(frozen=True)
class AdapterCheckpoint(Checkpoint):
    """An adapter on its base: a checkpoint with the base's tensors, until it is adapted.

    Attributes:
        base: The base.
        base_digest: Its digest, computed once for all adapters.
        adapter: The parsed ``adapter_config.json``.
        tensors: Every tensor of the adapter by its name in the file.
    """

    base: Checkpoint
    base_digest: Callable[[], str]
    adapter: dict[str, Any]
    tensors: dict[str, TensorEntry]

    @property
    def model_path(self) -> Path:
        """Directory of the base, whose configuration counts."""
        return self.base.path

    @property
    def tokenizer_path(self) -> Path:
        """The adapter's directory if it has a tokenizer, else the base's."""
        return self.path if vocabulary_file(self.path) is not None else self.base.path

    def signature(self) -> list[list[Any]]:
        """Return ``[file name, size, mtime_ns]`` of every file the digest depends on."""
        own = [self.path / CONFIG_FILE, self.path / WEIGHTS_FILE]
        return [*self.base.signature(), *file_signature(own, self.label)]

    def digest(self) -> str:
        """Return the SHA-256 of the base's digest and of all that makes up the product."""
        used = {key: self.adapter.get(key) for key in sorted(_USED)}
        state = hashlib.sha256(json.dumps([self.base_digest(), used]).encode())
        hash_tensors(self.tensors, self.label, state)
        return state.hexdigest()


def is_adapter(directory: Path) -> bool:
    """Tell whether a directory holds an adapter and no whole model."""
    return (directory / CONFIG_FILE).is_file() and not any(
        (directory / name).is_file()
        for name in ("model.safetensors", "model.safetensors.index.json")
    )


def base_needed(directory: Path, label: str) -> ComponentError:
    """Return the error for an adapter without a base."""
    name = read_json(directory / CONFIG_FILE, label, _AGAIN).get("base_model_name_or_path")
    what = f"an adapter of {name!r}" if name else "an adapter"
    remedy = "give the directory of that model as 'base'"
    return problem(label, what, remedy, file=directory / CONFIG_FILE)


def open_adapter(
    directory: Path, label: str, base: Checkpoint, base_digest: Callable[[], str]
) -> AdapterCheckpoint:
    """Read an adapter's config and the header of its weights.

    Raises:
        ComponentError: If it is damaged, or anything else than LoRA.
    """
    config = read_json(directory / CONFIG_FILE, label, _AGAIN)
    _check_plain(config, directory / CONFIG_FILE, label)
    file = directory / WEIGHTS_FILE
    if not file.is_file():
        what = f"no {WEIGHTS_FILE}" + (
            "; weights in a pickle are not read"
            if (directory / "adapter_model.bin").is_file()
            else ""
        )
        raise problem(label, what, "save the adapter with save_pretrained", file=directory)
    tensors = read_header(file, label)
    if not tensors:
        raise problem(label, "no tensors in the weight file", _AGAIN, file=file)
    return AdapterCheckpoint(
        label, directory, base.config, base.entries, base, base_digest, config, tensors
    )


def once(compute: Callable[[], str]) -> Callable[[], str]:
    """Return a function that computes a value when first called, by whichever thread."""
    lock = Lock()
    found: list[str] = []

    def value() -> str:
        with lock:
            if not found:
                found.append(compute())
        return found[0]

    return value


def adapt(component: Component, skeleton: Skeleton) -> Component:
    """Return an adapter's component with its products in place; a whole model stays as it is.

    Raises:
        ComponentError: If a tensor of the adapter fits none of the base.
    """
    checkpoint = component.checkpoint
    if not isinstance(checkpoint, AdapterCheckpoint):
        return component
    n_names = Counter(skeleton.canonical.values())
    of_base: dict[str, Any] = dict(component.sources)  # nothing of it is adapted yet
    sources = dict(component.sources)
    pairs: dict[str, dict[str, tuple[str, TensorEntry]]] = {}
    for name, entry in checkpoint.tensors.items():
        plain = name.removeprefix(_PREFIX)
        for wrapper in _WRAPPERS:
            plain = plain.replace(wrapper, ".")
        factor = _FACTOR.match(plain)
        canonical = skeleton.canonical.get(f"{factor['module']}.weight" if factor else plain)
        if canonical is None or canonical in skeleton.constants:
            what = f"tensor {name!r} has no place in {skeleton.model_class.__name__}"
            raise problem(checkpoint.label, what, _REMEDY, file=entry.file)
        if n_names[canonical] > 1:
            what = f"tensor {name!r} adapts one of several tensors that config.json ties"
            raise problem(checkpoint.label, what, _REMEDY, file=entry.file)
        if entry.dtype not in MERGEABLE:
            what = f"tensor {name!r} is stored as {entry.dtype}, which cannot be added"
            raise problem(checkpoint.label, what, _REMEDY, file=entry.file)
        if factor:
            kind = factor["factor"] + (factor["embedding"] or "")
            pairs.setdefault(canonical, {})[kind] = (name, entry)
            continue
        if entry.shape != skeleton.shapes[canonical]:
            raise _other_shape(checkpoint, name, entry, skeleton.shapes[canonical])
        sources[canonical] = Adapted(before=of_base[canonical], origin=entry)
    for canonical, pair in pairs.items():
        now = sources[canonical]
        sources[canonical] = Adapted(
            before=of_base[canonical],
            origin=now.origin if isinstance(now, Adapted) else now,
            factors=_factors(checkpoint, pair, skeleton.shapes[canonical]),
        )
    return replace(component, sources=sources)


def _check_plain(config: dict[str, Any], file: Path, label: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        what = f"peft_type is {kind!r}; only LORA adapters can be merged"
        raise problem(label, what, _REMEDY, file=file)
    found = {key: value for key, value in config.items() if key not in _HARMLESS | _USED}
    if config.get("init_lora_weights", True) not in _PLAIN_BEGINNINGS:
        found["init_lora_weights"] = config["init_lora_weights"]
    for key, value in sorted(found.items()):
        # Off is False, None, 0 or empty; a parameter of a method that is off says nothing.
        if value and key not in ("qalora_group_size",):
            what = f"field {key!r} is {value!r}, which is not plain LoRA"
            raise problem(label, what, _REMEDY, file=file)
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        what = f"field 'lora_alpha' is {alpha!r}, not a number"
        raise problem(label, what, _REMEDY, file=file)


def _factors(
    checkpoint: AdapterCheckpoint,
    pair: dict[str, tuple[str, TensorEntry]],
    shape: tuple[int, ...],
) -> Factors:
    """Return the factors of one tensor with their scale."""
    embedding = any(len(kind) > 1 for kind in pair)
    wanted = ("Aembedding_", "Bembedding_") if embedding else ("A", "B")
    for kind in wanted:
        if kind not in pair:
            name, entry = next(iter(pair.values()))
            what = f"tensor {name!r} without 'lora_{kind[0]}'"
            raise problem(checkpoint.label, what, _AGAIN, file=entry.file)
    (name_a, a), (name_b, b) = (pair[kind] for kind in wanted)
    config = checkpoint.adapter
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    n_out, n_in = shape[::-1] if transposed and len(shape) == 2 else (shape[0], shape[-1])
    rank = a.shape[0] if a.shape else 0
    for name, entry, expected in ((name_a, a, (rank, n_in)), (name_b, b, (n_out, rank))):
        if len(shape) != 2 or not rank or entry.shape != expected:
            raise _other_shape(checkpoint, name, entry, expected)
    module = name_a.removeprefix(_PREFIX).partition(".lora_")[0]
    alpha = _by_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Factors(a, b, scale, transposed)


def _by_module(patterns: Any, module: str, default: float) -> float:
    """Return what PEFT's first fitting pattern says of a module."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(default)


def _other_shape(
    checkpoint: AdapterCheckpoint, name: str, entry: TensorEntry, expected: tuple[int, ...]
) -> ComponentError:
    what = f"tensor {name!r} has shape {list(entry.shape)}, but the base makes it {list(expected)}"
    remedy = "give the base that this adapter was trained on"
    return problem(checkpoint.label, what, remedy, file=entry.file)
