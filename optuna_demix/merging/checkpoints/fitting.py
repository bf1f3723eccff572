"""Fit a checkpoint to the model: every tensor of the model has one source, of its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from optuna_demix.merging._dtypes import MERGEABLE
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.adapted_tensor import Adapted
from optuna_demix.merging.checkpoints.conversion import Converted, match_names
from optuna_demix.merging.checkpoints.safetensors import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna_demix.merging.checkpoints.checkpoint import Checkpoint
    from optuna_demix.merging.checkpoints.skeleton import Skeleton

ONE_BASE_REMEDY = "train all components from one base model, or correct the file"
Source: TypeAlias = TensorEntry | Converted | Adapted


@dataclass(frozen=True)
class Component:
    """One checkpoint, its tensors under the names that the model gives them.

    Attributes:
        checkpoint: The directory as found.
        sources: Where each of the model's tensors comes from, by canonical name.
        duplicates: ``(canonical name, source)`` of further copies of tied tensors.
    """

    checkpoint: Checkpoint
    sources: dict[str, Source]
    duplicates: tuple[tuple[str, Source], ...]


def fit(checkpoint: Checkpoint, skeleton: Skeleton) -> Component:
    """Match a checkpoint's tensors with those of the model.

    Raises:
        ComponentError: Naming the first tensor that is missing, too many, or of another shape or
            type than the model needs.
    """
    model = skeleton.model_class.__name__
    sources: dict[str, Source] = {}
    duplicates: list[tuple[str, Source]] = []
    for name, title, source in _found(checkpoint, skeleton):
        canonical = skeleton.canonical[name]
        if source.shape != skeleton.shapes[canonical]:
            what = (
                f"tensor {title!r} has shape {list(source.shape)}, but config.json makes it "
                f"{list(skeleton.shapes[canonical])}"
            )
            raise problem(checkpoint.label, what, ONE_BASE_REMEDY, file=source.file)
        if canonical in sources:
            duplicates.append((canonical, source))
        else:
            sources[canonical] = source
            _check_type(checkpoint, skeleton, canonical, title, source)
    for name in skeleton.shapes:
        if name not in sources:
            what = f"no tensor for parameter {name!r} of {model}"
            remedy = "correct config.json or save the whole model again"
            raise problem(checkpoint.label, what, remedy, file=checkpoint.path)
    return Component(checkpoint, sources, tuple(duplicates))


def _found(checkpoint: Checkpoint, skeleton: Skeleton) -> Iterator[tuple[str, str, Source]]:
    """Yield the name in the model, how messages call it, and the source of all that is there."""
    matches = match_names(checkpoint, skeleton.model)
    for renamed, name in matches.unknown:
        if not (skeleton.does_without(renamed) or skeleton.does_without(name)):
            what = f"tensor {name!r} has no place in {skeleton.model_class.__name__}"
            remedy = "correct config.json, or load the model and save it with save_pretrained"
            file = checkpoint.entries[name].file
            raise problem(checkpoint.label, what, remedy, file=file)
    for renamed, name, entry in matches.stored:
        yield renamed, name, entry
    for conversion, shapes in matches.conversions:
        for name, shape in shapes.items():
            if name in skeleton.canonical:
                yield name, name, Converted(conversion, name, shape)


def _check_type(
    checkpoint: Checkpoint, skeleton: Skeleton, name: str, title: str, source: Source
) -> None:
    """What is averaged must be stored in a type that has an average."""
    if name in skeleton.constants:
        return
    for entry in entries_of(source):
        if entry.dtype not in MERGEABLE:
            what = f"tensor {title!r} is stored as {entry.dtype}, which cannot be averaged"
            remedy = "save the model in bfloat16, float16 or float32"
            raise problem(checkpoint.label, what, remedy, file=entry.file)


def entries_of(source: Source) -> list[TensorEntry]:
    """Return the stored tensors behind a source."""
    if isinstance(source, Adapted):
        source = source.before
    if isinstance(source, TensorEntry):
        return [source]
    return [entry for _, entry in source.conversion.sources]


def common_dtype(components: list[Component], skeleton: Skeleton) -> torch.dtype:
    """Return the one element type in which all components hold most of their elements.

    What the model keeps in float32 in any case does not count.

    Raises:
        ComponentError: If it is not the same of all.
    """
    free = set(skeleton.shapes)
    for wanted in (torch.float16, torch.bfloat16):
        free &= {name for name, dtype in skeleton.dtypes(wanted).items() if dtype == wanted}
    expected = _main_dtype(components[0], free)
    for component in components[1:]:
        dtype = _main_dtype(component, free)
        if dtype != expected:
            first = components[0].checkpoint
            what = f"stored as {dtype}, but {first.label} as {expected} ({first.path})"
            remedy = "save all components in one dtype"
            path = component.checkpoint.path
            raise problem(component.checkpoint.label, what, remedy, file=path)
    return MERGEABLE[expected]


def _main_dtype(component: Component, free: set[str]) -> str:
    """Return the floating type of most elements; of equals the first in the file's order."""
    counts: dict[str, int] = {}
    for name, source in component.sources.items():
        for entry in entries_of(source):
            if entry.dtype in MERGEABLE:
                weight = math.prod(entry.shape) if name in free else 0
                counts[entry.dtype] = counts.get(entry.dtype, 0) + weight
    if not counts:
        what, remedy = "holds no tensor that can be averaged", "save the whole model again"
        raise problem(component.checkpoint.label, what, remedy, file=component.checkpoint.path)
    return max(counts, key=lambda dtype: counts[dtype])
