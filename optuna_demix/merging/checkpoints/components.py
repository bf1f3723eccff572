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

from optuna_demix._wording import unknown_name
from optuna_demix.errors import ComponentError
from optuna_demix.merging._aside import write_aside
from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging.checkpoints.adapters import (
    adapt,
    base_needed,
    is_adapter,
    once,
    open_adapter,
)
from optuna_demix.merging.checkpoints.checkpoint import Checkpoint, open_checkpoint
from optuna_demix.merging.checkpoints.configs import (
    check_same_generation,
    common_model,
    generation_settings,
)
from optuna_demix.merging.checkpoints.fitting import Component, common_dtype, fit
from optuna_demix.merging.checkpoints.tokenization import StandardTokenizer
from optuna_demix.merging.checkpoints.tokenizer_files import vocabulary_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna_demix.merging.checkpoints.skeleton import Skeleton

# What lm-eval takes the longest input from, in its order.
_LONGEST_INPUT = ("n_positions", "max_position_embeddings", "n_ctx")


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
        config_of: Name of the component whose configuration, generation settings and tokenizer
            stand for all.
        generation: What decides generated text beside the weights, ``eos_token_id`` above all.
        skeleton: The model, valueless.
    """

    names: tuple[str, ...]
    paths: dict[str, Path]
    tensors: dict[str, TensorSpec]
    constants: dict[str, torch.dtype]
    dtype: torch.dtype
    components: tuple[Component, ...]
    base: Component | None
    config_of: str
    generation: dict[str, Any]
    skeleton: Skeleton

    @classmethod
    def open(
        cls,
        paths: Mapping[str, str | os.PathLike[str]],
        *,
        base: str | os.PathLike[str] | None = None,
        config_of: str | None = None,
        trust_remote_code: bool = False,
    ) -> ComponentSet:
        """Read the headers of components and check that they can be averaged.

        Args:
            paths: Directory of each component in the layout of ``save_pretrained``, by name: of a
                whole model, or of a LoRA adapter of the base.
            base: Directory of the model they were all trained from; checked like a component.
            config_of: The component whose configuration, generation settings and tokenizer stand
                for all. Without it components must agree on where a text ends.
            trust_remote_code: Let models run code from their own directory.

        Raises:
            ComponentError: Naming the first component, file and tensor or field that is missing,
                damaged or unlike those of the first component.
        """
        if not paths:
            raise ComponentError("no components given; name at least one model directory")
        names = tuple(paths)
        if config_of is not None and config_of not in names:
            raise ComponentError(f"config_of: {unknown_name(config_of, names, 'component')}")
        of_base = [] if base is None else [open_checkpoint(base, "base")]
        checkpoints = [*_open_all(paths, of_base), *of_base]
        skeleton, configs = common_model(checkpoints, trust_remote_code=trust_remote_code)
        components = [fit(checkpoint, skeleton) for checkpoint in checkpoints]
        dtype = common_dtype(components, skeleton)
        components = [adapt(component, skeleton) for component in components]
        chosen = names.index(config_of) if config_of is not None else 0
        first = checkpoints[chosen]
        tokenizer = StandardTokenizer(
            first,
            configs[chosen].get_text_config().vocab_size,
            trust_remote_code=trust_remote_code,
        )
        for checkpoint in checkpoints:
            # Nothing is ever tokenized with the base's files, so it may come without.
            is_base = base is not None and checkpoint is checkpoints[-1]
            if checkpoint is first or (is_base and vocabulary_file(checkpoint.path) is None):
                continue
            tokenizer.check_same(checkpoint, same_ends=config_of is None and not is_base)
        tokenizer.check_fits()
        generation = generation_settings(first, configs[chosen])
        if config_of is None:
            for checkpoint, config in zip(checkpoints[1 : len(names)], configs[1:], strict=False):
                theirs = generation_settings(checkpoint, config)
                check_same_generation(first, generation, checkpoint, theirs)
        return cls(
            names=names,
            paths={name: Path(path) for name, path in paths.items()},
            tensors=tensor_specs(skeleton),
            constants=skeleton.constants,
            dtype=dtype,
            components=tuple(components[: len(names)]),
            base=components[-1] if base is not None else None,
            config_of=names[chosen],
            generation=generation,
            skeleton=skeleton,
        )

    @property
    def n_parameters(self) -> int:
        """Number of merged elements, tied ones counted once."""
        return sum(spec.n_elements for spec in self.tensors.values())

    @property
    def standard(self) -> Checkpoint:
        """The checkpoint whose configuration and tokenizer stand for all."""
        return self.components[self.names.index(self.config_of)].checkpoint

    @property
    def longest_input(self) -> int | None:
        """Tokens that fit into the model, by its configuration, where that says it."""
        config = self.standard.config
        for scope in (config, config.get("text_config") or {}):
            for field in _LONGEST_INPUT:
                if isinstance(scope.get(field), int):
                    return int(scope[field])
        return None

    @property
    def config_path(self) -> Path:
        """The ``config.json`` that stands for all."""
        return self.standard.config_path

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


def tensor_specs(skeleton: Skeleton) -> dict[str, TensorSpec]:
    """Return what is averaged, by name, in the order of the names."""
    by_dtype = {dtype: skeleton.dtypes(dtype) for dtype in MERGEABLE.values()}
    return {
        name: TensorSpec(
            skeleton.shapes[name], {dtype: found[name] for dtype, found in by_dtype.items()}
        )
        for name in sorted(set(skeleton.shapes) - set(skeleton.constants))
    }


def _open_all(
    paths: Mapping[str, str | os.PathLike[str]], of_base: Sequence[Checkpoint]
) -> list[Checkpoint]:
    """Open all components, adapters on the base."""
    digest = once(of_base[0].digest) if of_base else None
    found: list[Checkpoint] = []
    for name, path in paths.items():
        label = f"component {name!r}"
        if not is_adapter(Path(path)):
            found.append(open_checkpoint(path, label))
        elif digest is None:
            raise base_needed(Path(path), label)
        else:
            found.append(open_adapter(Path(path), label, of_base[0], digest))
    return found


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
