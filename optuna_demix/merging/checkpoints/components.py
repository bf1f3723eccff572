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
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.checkpoint import Checkpoint, open_checkpoint
from optuna_demix.merging.checkpoints.configs import (
    ONE_BASE_REMEDY,
    check_same_generation,
    common_model,
    generation_settings,
)
from optuna_demix.merging.checkpoints.tokenization import check_same_tokenizer, check_token_ids_fit
from optuna_demix.merging.checkpoints.tokenizer_files import vocabulary_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna_demix.merging.checkpoints.safetensors import TensorEntry
    from optuna_demix.merging.checkpoints.skeleton import Skeleton


@dataclass(frozen=True)
class TensorSpec:
    """Shape and element type of one merged tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Component:
    """One checkpoint, its tensors under the names that the model gives them.

    Attributes:
        checkpoint: The directory as found.
        sources: Where each of the model's tensors lies, by canonical name.
        duplicates: ``(canonical name, entry)`` of further copies of tied tensors.
    """

    checkpoint: Checkpoint
    sources: dict[str, TensorEntry]
    duplicates: tuple[tuple[str, TensorEntry], ...]


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
        tensors: Every tensor of the model, tied ones once, by its name in the model.
        dtype: The element type of all tensors of all components.
        components: The components themselves, in order.
        base: The base model, or None.
        config_of: Name of the component whose configuration, generation settings and tokenizer
            stand for all.
        generation: What decides generated text beside the weights, ``eos_token_id`` above all.
    """

    names: tuple[str, ...]
    paths: dict[str, Path]
    tensors: dict[str, TensorSpec]
    dtype: torch.dtype
    components: tuple[Component, ...]
    base: Component | None
    config_of: str
    generation: dict[str, Any]

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
            paths: Directory of each component in the layout of ``save_pretrained``, by name.
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
        checkpoints = [
            open_checkpoint(path, f"component {name!r}") for name, path in paths.items()
        ]
        if base is not None:
            checkpoints.append(open_checkpoint(base, "base"))
        skeleton, configs = common_model(checkpoints, trust_remote_code=trust_remote_code)
        components = [_fit(checkpoint, skeleton) for checkpoint in checkpoints]
        dtype = _common_dtype(components)
        chosen = names.index(config_of) if config_of is not None else 0
        first = checkpoints[chosen]
        n_embeddings = configs[chosen].get_text_config().vocab_size
        for checkpoint in checkpoints:
            # Nothing is ever tokenized with the base's files, so it may come without.
            is_base = base is not None and checkpoint is checkpoints[-1]
            if checkpoint is first or (is_base and vocabulary_file(checkpoint.path) is None):
                continue
            check_same_tokenizer(
                first,
                checkpoint,
                n_embeddings=n_embeddings,
                trust_remote_code=trust_remote_code,
                same_ends=config_of is None and not is_base,
            )
        check_token_ids_fit(first, n_embeddings, trust_remote_code=trust_remote_code)
        generation = generation_settings(first, configs[chosen])
        if config_of is None:
            for checkpoint, config in zip(checkpoints[1 : len(names)], configs[1:], strict=False):
                theirs = generation_settings(checkpoint, config)
                check_same_generation(first, generation, checkpoint, theirs)
        return cls(
            names=names,
            paths={name: Path(path) for name, path in paths.items()},
            tensors={
                name: TensorSpec(shape, dtype) for name, shape in sorted(skeleton.shapes.items())
            },
            dtype=dtype,
            components=tuple(components[: len(names)]),
            base=components[-1] if base is not None else None,
            config_of=names[chosen],
            generation=generation,
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


def _fit(checkpoint: Checkpoint, skeleton: Skeleton) -> Component:
    """Match a checkpoint's tensors with those of the model."""
    sources: dict[str, TensorEntry] = {}
    duplicates: list[tuple[str, TensorEntry]] = []
    for name, entry in checkpoint.entries.items():
        canonical = skeleton.resolve(name)
        if canonical is None:
            if skeleton.is_rebuilt(name):
                continue
            what = f"tensor {name!r} has no place in {skeleton.model_class.__name__}"
            remedy = (
                "correct config.json, or load the model and save it with "
                "save_pretrained(directory, save_original_format=False)"
            )
            raise problem(checkpoint.label, what, remedy, file=entry.file)
        if entry.shape != skeleton.shapes[canonical]:
            what = (
                f"tensor {name!r} has shape {list(entry.shape)}, but config.json makes it "
                f"{list(skeleton.shapes[canonical])}"
            )
            raise problem(checkpoint.label, what, ONE_BASE_REMEDY, file=entry.file)
        if canonical in sources:
            duplicates.append((canonical, entry))
        else:
            sources[canonical] = entry
    for name in skeleton.shapes:
        if name not in sources:
            what = f"no tensor for parameter {name!r} of {skeleton.model_class.__name__}"
            remedy = "correct config.json or save the whole model again"
            raise problem(checkpoint.label, what, remedy, file=checkpoint.path)
    return Component(checkpoint, sources, tuple(duplicates))


def _common_dtype(components: list[Component]) -> torch.dtype:
    """Return the one element type of all tensors of all components."""
    first = components[0]
    expected = next(iter(first.sources.values()))
    for component in components:
        for name, entry in component.sources.items():
            label = component.checkpoint.label
            if entry.dtype not in MERGEABLE:
                what = f"tensor {name!r} is stored as {entry.dtype}, which cannot be averaged"
                remedy = "save the model in bfloat16, float16 or float32"
                raise problem(label, what, remedy, file=entry.file)
            if entry.dtype != expected.dtype:
                what = (
                    f"tensor {name!r} is stored as {entry.dtype}, but others as "
                    f"{expected.dtype} ({expected.file})"
                )
                remedy = "save all components in one dtype"
                raise problem(label, what, remedy, file=entry.file)
    return MERGEABLE[expected.dtype]
