"""Weights of a live model in vLLM: the same memory where the layout lets them, else copies.

vLLM keeps some tensors of a checkpoint as one parameter: the projections to queries, keys and
values, those of gate and up. What its own loader copies is watched once. A parameter whose parts
lie side by side in the live model as well becomes a view of them, and the copies into the others
are repeated after each merge. A model that makes new tensors of its weights is loaded anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.core_model_loading import revert_weight_conversion

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

LOAD_FORMAT = "optuna_demix"
"""Name of our way to load, as vLLM knows it."""

_KEY = "source"  # of the loader's configuration


@dataclass(frozen=True)
class Copy:
    """A part of a parameter and the tensor that it was copied from, of one shape."""

    target: Tensor
    source: Tensor


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is copied inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[Copy] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; note a copy."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.copy_.default and isinstance(args[1], torch.Tensor):
            self.made.append(Copy(args[0].detach(), args[1].detach()))
        return result


@dataclass
class Bindings:
    """How parameters follow the live weights.

    Attributes:
        bound: Names of those that are views of them.
        copied: What is to be copied into the others, after each change.
        reason: Why neither will do and the model has to be loaded anew; ``None`` if it need not.
    """

    bound: list[str] = field(default_factory=list)
    copied: list[Copy] = field(default_factory=list)
    reason: str | None = None

    def update(self) -> None:
        """Copy what is not bound."""
        for copy in self.copied:
            copy.target.copy_(copy.source)


class Source:
    """The weights of a live model as a checkpoint of its kind names them.

    Args:
        model: The live model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.bindings = Bindings(reason="nothing is loaded yet")

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, a view of the live weights where no conversion stands between."""
        state = {name: tensor.detach() for name, tensor in self._model.state_dict().items()}
        return dict(revert_weight_conversion(self._model, state))


_SOURCES: dict[str, Source] = {}
"""What our loader reads, by a key: vLLM hands it plain values only."""


@contextmanager
def offered(source: Source) -> Iterator[dict[str, Any]]:
    """Arguments of vLLM's engine that let it load a source inside."""
    _register()
    key = str(id(source))
    _SOURCES[key] = source
    try:
        yield {"load_format": LOAD_FORMAT, "model_loader_extra_config": {_KEY: key}}
    finally:
        del _SOURCES[key]


@cache
def _register() -> None:
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class LiveLoader(BaseModelLoader):  # type: ignore[misc]
        """Loads vLLM's model from a live one."""

        def download_model(self, model_config: Any) -> None:
            """Nothing: all is there."""

        def load_weights(self, model: nn.Module, model_config: Any) -> None:
            """Load all weights, and note how."""
            with Copies() as copies:
                loaded = model.load_weights(self._source.tensors().items())  # type: ignore[operator]
            names = {name for name, _ in model.named_parameters()}
            missing = sorted(names - loaded) if loaded is not None else []
            if missing:
                raise ValueError(f"the live model has no weights for {missing[0]}")
            self._copies = copies.made
            self._attributes = tensor_attributes(model)

        def load_model(self, *arguments: Any, **options: Any) -> nn.Module:
            """Load the model, and find out how it follows the live one."""
            model: nn.Module = super().load_model(*arguments, **options)
            made = tensor_attributes(model) - self._attributes
            self._source.bindings = (
                Bindings(reason=f"{min(made)} is made of weights")
                if made
                else bind(
                    dict(model.named_parameters()),
                    self._copies,
                    self._source.tensors().values(),
                )
            )
            self._copies = []
            return model

        @property
        def _source(self) -> Source:
            return _SOURCES[self.load_config.model_loader_extra_config[_KEY]]

    register_model_loader(LOAD_FORMAT)(LiveLoader)


def tensor_attributes(model: nn.Module) -> set[str]:
    """Names of tensors that modules keep and that are neither parameters nor buffers."""
    return {
        f"{name}.{attribute}"
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }


def bind(
    parameters: Mapping[str, Tensor], copies: Iterable[Copy], live: Iterable[Tensor]
) -> Bindings:
    """Make parameters views of live tensors, or find out how to follow them.

    Args:
        parameters: The parameters that have been loaded, by name.
        copies: What was copied while they were.
        live: All tensors of the live model.

    Returns:
        How they follow; nothing is bound if one cannot.
    """
    memory = {tensor.untyped_storage().data_ptr() for tensor in live}
    of_storage: dict[int, list[Copy]] = {}
    for copy in copies:
        of_storage.setdefault(copy.target.untyped_storage().data_ptr(), []).append(copy)
    found = Bindings()
    views: list[tuple[Tensor, Tensor]] = []
    for name, parameter in parameters.items():
        parts = of_storage.get(parameter.untyped_storage().data_ptr(), [])
        if not parts:
            return Bindings(reason=f"{name} was made anew after loading")
        for part in parts:
            if part.source.untyped_storage().data_ptr() not in memory:
                return Bindings(reason=f"{name} is loaded from converted weights")
        view = side_by_side(parameter, parts)
        if view is None:
            found.copied += parts
        else:
            views.append((parameter, view))
            found.bound.append(name)
    for parameter, view in views:
        parameter.data = view
    return found


def side_by_side(parameter: Tensor, parts: Sequence[Copy]) -> Tensor | None:
    """The live memory that has the layout of a parameter, as a view of its shape, or ``None``."""
    first, *others = sorted(parts, key=lambda part: part.target.data_ptr())
    source = first.source
    if first.target.data_ptr() != parameter.data_ptr() or not parameter.is_contiguous():
        return None
    if source.dtype != parameter.dtype or source.device != parameter.device:
        return None
    offset = source.data_ptr() - first.target.data_ptr()
    memory = source.untyped_storage().data_ptr()
    end = first.target.data_ptr()
    for part in (first, *others):
        if not (part.target.is_contiguous() and part.source.is_contiguous()):
            return None
        if part.source.dtype != source.dtype or part.target.data_ptr() != end:
            return None
        if part.source.untyped_storage().data_ptr() != memory:
            return None
        if part.source.data_ptr() - part.target.data_ptr() != offset:
            return None
        end += part.target.numel() * part.target.element_size()
    if end - parameter.data_ptr() != parameter.numel() * parameter.element_size():
        return None
    return source.as_strided(parameter.shape, parameter.stride(), source.storage_offset())
