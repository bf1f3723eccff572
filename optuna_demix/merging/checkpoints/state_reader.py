"""Read a component's tensors as the model holds them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch

from optuna_demix._wording import one_line
from optuna_demix.errors import ComponentError
from optuna_demix.merging._dtypes import MERGEABLE, all_finite, dtype_name
from optuna_demix.merging._problem import problem
from optuna_demix.merging.checkpoints.adapted_tensor import Adapted, adapted_elements
from optuna_demix.merging.checkpoints.conversion import Conversion, Converted
from optuna_demix.merging.checkpoints.safetensors import TensorEntry
from optuna_demix.merging.checkpoints.tensor_reader import TensorReader

if TYPE_CHECKING:
    from types import TracebackType

    from optuna_demix.merging.checkpoints.fitting import Component, Source

_MAX_READY = 8  # converted groups kept while others are read in between
_STORED = {
    **MERGEABLE,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


class StateReader:
    """Reads one component, its files open.

    What is stored as the model holds it is read where it lies, any part of it. What must be
    converted is converted group by group; a group is kept until all of it has been read.

    Args:
        component: The component.
    """

    def __init__(self, component: Component) -> None:
        self._component = component
        self._label = component.checkpoint.label
        self._reader = TensorReader(self._label)
        self._ready: OrderedDict[Conversion, dict[str, torch.Tensor]] = OrderedDict()

    def __enter__(self) -> StateReader:
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every file."""
        self._reader.__exit__(kind, error, traceback)

    def read(self, name: str, start: int, out: torch.Tensor) -> None:
        """Fill a flat tensor of floats with elements of tensor ``name`` from ``start`` on.

        Args:
            name: Its canonical name.
            start: The first element.
            out: Where to, (n,), of any floating type; elements are rounded to nearest even.

        Raises:
            ComponentError: If a file cannot be read, or an element is not finite in the dtype it
                has in the file or gets in ``out``.
        """
        source = self._component.sources[name]
        found = out
        if isinstance(source, TensorEntry) and out.dtype == _STORED[source.dtype]:
            self._read_into(source, start, out)
        else:
            found = self.elements(source, start, len(out))
            out.copy_(found)
        if not all_finite(out if out.dtype != torch.float64 else found):
            self._refuse(name, source, found, out)

    def elements(self, source: Source, start: int, count: int) -> torch.Tensor:
        """Return elements of a source in the type they are stored in; adapted ones in float32.

        Args:
            source: A source of this component, of a tensor of any type.
            start: The first element.
            count: How many.

        Returns:
            The elements, (count,).

        Raises:
            ComponentError: If a file cannot be read or its tensors cannot be converted.
        """
        if isinstance(source, Adapted):
            return adapted_elements(source, start, count, self.elements)
        if isinstance(source, TensorEntry):
            found = torch.empty(count, dtype=_STORED[source.dtype])
            self._read_into(source, start, found)
            return found
        made = self._converted(source)
        flat = made[source.name].reshape(-1)
        if start + count == len(flat):
            del made[source.name]
            if not made:
                del self._ready[source.conversion]
        return flat[start : start + count]

    def _converted(self, source: Converted) -> dict[str, torch.Tensor]:
        """Return what is left to read of a group, converting it where this tensor is not."""
        conversion = source.conversion
        if source.name not in self._ready.get(conversion, {}):
            self._ready.pop(conversion, None)
            try:
                made = conversion.run(self._stored)
            except ComponentError:
                raise
            except Exception as error:  # whatever transformers' operations raise
                what = f"tensor {source.name!r} cannot be converted ({one_line(error)})"
                remedy = "save the whole model again"
                raise problem(self._label, what, remedy, file=conversion.file) from error
            self._ready[conversion] = {name: t.contiguous() for name, t in made.items()}
            if len(self._ready) > _MAX_READY:
                self._ready.popitem(last=False)
        return self._ready[conversion]

    def _stored(self, entry: TensorEntry) -> torch.Tensor:
        found = torch.empty(entry.shape, dtype=_STORED[entry.dtype])
        self._read_into(entry, 0, found.view(-1))
        return found

    def _read_into(self, entry: TensorEntry, start: int, out: torch.Tensor) -> None:
        content = out.view(torch.uint8).numpy().data
        self._reader.read_into(entry, start * out.element_size(), content)

    def _refuse(self, name: str, source: Source, found: torch.Tensor, out: torch.Tensor) -> None:
        if all_finite(found):
            what = f"tensor {name!r} holds numbers too large for {dtype_name(out.dtype)}"
            remedy = "build the arena in bfloat16 or float32"
        else:
            what = f"tensor {name!r} holds NaN or infinity"
            remedy = "leave this component out or train it again"
        raise problem(self._label, what, remedy, file=source.file)
