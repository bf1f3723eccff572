"""The set of components that a mixture is merged from, checked against each other."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix.errors import ComponentError
from optuna_demix.merging._aside import write_aside
from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.checkpoint import (
    VOLATILE_FIELDS,
    Checkpoint,
    open_checkpoint,
)
from optuna_demix.merging.checkpoints.fitting import (
    ONE_BASE_REMEDY,
    Component,
    common_dtype,
    fit,
)
from optuna_demix.merging.checkpoints.skeleton import Skeleton, build_skeleton, load_config
from optuna_demix.merging.checkpoints.tokenizer_files import (
    check_same_tokenizer,
    check_token_ids_fit,
    vocabulary_file,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Fields of a config that change neither the parameters nor what the model computes from them.
_HARMLESS_FIELDS = VOLATILE_FIELDS | {
    "_attn_implementation_autoset",
    "architectures",  # compared first, with its own message
    "attention_dropout",
    "attn_pdrop",
    "bos_token_id",
    "classifier_dropout",
    "dtype",  # the tensors themselves are compared
    "embd_pdrop",
    "eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "resid_pdrop",
    "return_dict",
    "torch_dtype",
    "use_cache",
}


@dataclass(frozen=True)
class TensorSpec:
    """Shape of one merged tensor, and the element type it gets.

    Attributes:
        shape: Its shape.
        dtypes: Its type in a model of each mergeable type: of most tensors that type, of some
            always float32.
    """

    shape: tuple[int, ...]
    dtypes: Mapping[torch.dtype, torch.dtype]

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ComponentSet:
    """K components that can be averaged, and the base they were trained from, if known.

    Make one with `open`. Only headers have been read; the weights lie on disk.

    Example:
        ::

            components = ComponentSet.open({"web": "runs/web", "code": "runs/code"})
            arena = Arena.build(components, "runs/components.arena")

    Attributes:
        names: The K component names, in the order of the merge weights.
        paths: Directory of each component.
        tensors: Every tensor of the model that is averaged, tied ones once, by its name there.
        constants: Element type of those that are not, such as tables of integers, by name.
        dtype: The element type in which each component holds most of its elements.
        components: The components themselves, in order.
        base: The base model, or None.
    """

    names: tuple[str, ...]
    paths: dict[str, Path]
    tensors: dict[str, TensorSpec]
    constants: dict[str, torch.dtype]
    dtype: torch.dtype
    components: tuple[Component, ...]
    base: Component | None

    @classmethod
    def open(
        cls,
        paths: Mapping[str, str | os.PathLike[str]],
        *,
        base: str | os.PathLike[str] | None = None,
        trust_remote_code: bool = False,
    ) -> ComponentSet:
        """Read the headers of components and check that they can be averaged.

        Args:
            paths: Directory of each component in the layout of ``save_pretrained``, by name.
            base: Directory of the model they were all trained from; checked like a component.
            trust_remote_code: Let models run code from their own directory.

        Raises:
            ComponentError: Naming the first component, file and tensor or field that is missing,
                damaged or unlike those of the first component.
        """
        if not paths:
            raise ComponentError("no components given; name at least one model directory")
        checkpoints = [
            open_checkpoint(path, f"component {name!r}") for name, path in paths.items()
        ]
        if base is not None:
            checkpoints.append(open_checkpoint(base, "base"))
        first = checkpoints[0]
        skeleton = _common_skeleton(checkpoints, trust_remote_code=trust_remote_code)
        components = [fit(checkpoint, skeleton) for checkpoint in checkpoints]
        dtype = common_dtype(components, skeleton)
        for checkpoint in checkpoints[1 : len(paths)]:
            check_same_tokenizer(first, checkpoint)
        # Nothing is ever tokenized with the base's files, so it may come without.
        if base is not None and vocabulary_file(checkpoints[-1].path) is not None:
            check_same_tokenizer(first, checkpoints[-1])
        vocab_size = first.config.get("vocab_size")
        if isinstance(vocab_size, int):
            check_token_ids_fit(first, vocab_size)
        return cls(
            names=tuple(paths),
            paths={name: Path(path) for name, path in paths.items()},
            tensors=_specs(skeleton),
            constants=skeleton.constants,
            dtype=dtype,
            components=tuple(components[: len(paths)]),
            base=components[-1] if base is not None else None,
        )

    @property
    def n_parameters(self) -> int:
        """Number of merged elements, tied ones counted once."""
        return sum(spec.n_elements for spec in self.tensors.values())

    @property
    def config_path(self) -> Path:
        """The ``config.json`` of the first component, which stands for all."""
        return self.components[0].checkpoint.config_path

    def digests(self, *, cache: str | os.PathLike[str] | None = None) -> dict[str, str]:
        """Return the SHA-256 of each component's tensors and config, by name.

        Args:
            cache: A JSON file that remembers digests by path, size and modification time, so that
                gigabytes are read once and not by every worker.

        Raises:
            ComponentError: If a component or the cache cannot be read or written.
        """
        digests = _digests([component.checkpoint for component in self.components], cache)
        return dict(zip(self.names, digests, strict=True))

    def base_digest(self, *, cache: str | os.PathLike[str] | None = None) -> str | None:
        """Return the SHA-256 of the base's tensors and config, or None without a base.

        Args:
            cache: As in `digests`; one file serves both.

        Raises:
            ComponentError: If the base or the cache cannot be read or written.
        """
        if self.base is None:
            return None
        return _digests([self.base.checkpoint], cache)[0]


def _specs(skeleton: Skeleton) -> dict[str, TensorSpec]:
    """Return what is averaged, by name, in the order of the names."""
    by_dtype = {dtype: skeleton.dtypes(dtype) for dtype in MERGEABLE.values()}
    return {
        name: TensorSpec(
            skeleton.shapes[name], {dtype: found[name] for dtype, found in by_dtype.items()}
        )
        for name in sorted(set(skeleton.shapes) - set(skeleton.constants))
    }


def _digests(checkpoints: Sequence[Checkpoint], cache: str | os.PathLike[str] | None) -> list[str]:
    """Return the digest of each checkpoint, computing those that the cache does not know."""
    known = _read_cache(Path(cache)) if cache is not None else {}
    keys = [str(checkpoint.path.resolve()) for checkpoint in checkpoints]
    by_key = dict(zip(keys, checkpoints, strict=True))
    signatures = {key: checkpoint.signature() for key, checkpoint in by_key.items()}
    stale = [
        key
        for key, signature in signatures.items()
        if known.get(key, {}).get("files") != signature
    ]
    # hashlib and file reads release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        fresh = list(pool.map(lambda key: by_key[key].digest(), stale))
    for key, digest in zip(stale, fresh, strict=True):
        known[key] = {"files": signatures[key], "digest": digest}
    if cache is not None and stale:
        with write_aside(Path(cache), "digest cache") as stream:
            stream.write(json.dumps(known, indent=1, sort_keys=True).encode())
    return [known[key]["digest"] for key in keys]


def _read_cache(file: Path) -> dict[str, Any]:
    """Return the cached digests; a cache that cannot be understood is an empty one."""
    try:
        content = json.loads(file.read_bytes())
        return {
            key: value
            for key, value in content.items()
            if isinstance(value["files"], list) and isinstance(value["digest"], str)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _common_skeleton(checkpoints: list[Checkpoint], *, trust_remote_code: bool) -> Skeleton:
    """Check that all configs describe one model and return its skeleton."""
    first = checkpoints[0]
    config = load_config(first.path, first.label, trust_remote_code=trust_remote_code)
    fields = _relevant(config.to_dict())
    for other in checkpoints[1:]:
        for field in ("model_type", "architectures"):
            _check_field(field, first.config, other.config, first, other)
        loaded = load_config(other.path, other.label, trust_remote_code=trust_remote_code)
        theirs = _relevant(loaded.to_dict())
        for field in sorted({*fields, *theirs}):
            _check_field(field, fields, theirs, first, other)
    return build_skeleton(
        config, first.label, first.config_path, trust_remote_code=trust_remote_code
    )


def _relevant(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that matter, in nested configs too."""
    return {
        name: _relevant(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name not in _HARMLESS_FIELDS
    }


def _check_field(
    field: str,
    fields: dict[str, Any],
    theirs: dict[str, Any],
    first: Checkpoint,
    other: Checkpoint,
) -> None:
    if fields.get(field) != theirs.get(field):
        what = (
            f"field {field!r} is {theirs.get(field)!r}, but {fields.get(field)!r} in "
            f"{first.label} ({first.config_path})"
        )
        raise problem(other.label, what, ONE_BASE_REMEDY, file=other.config_path)
