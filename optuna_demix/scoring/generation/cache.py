"""Keys and values of rows that come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from torch import Tensor

_STEP = 64  # places that rows grow by at least
_GROWTH = 1.25  # of rows that have become too short

Beginning: TypeAlias = "list[tuple[Tensor, Tensor]]"
"""Keys and values, (H, P, D) each, of every layer for tokens that several rows begin with."""


@dataclass
class Place:
    """Where a forward pass reads and writes.

    Attributes:
        first: Its first row.
        rows: How many there are.
        width: How many places of each row are read.
        start: Where the new tokens of every row begin, if it is the same place in all.
        at: Otherwise, of the one new token of each row, the row and its place; both (rows,).
        beginning: What is put in front of the new tokens.
    """

    first: int = 0
    rows: int = 0
    width: int = 0
    start: int = 0
    at: tuple[Tensor, Tensor] | None = None
    beginning: Beginning | None = None


def size_of(beginning: Beginning | None) -> int:
    """How many tokens a beginning has."""
    return 0 if beginning is None else int(beginning[0][0].shape[1])


class RowCache(Cache):
    """A transformers cache of rows that lie side by side and have lengths of their own.

    Memory grows with the longest row. Places that nothing was written to hold zeros, so that what
    the mask hides is always a number.

    Args:
        rows: Most rows at once.

    Attributes:
        place: Where the next forward pass reads and writes; to be set before it.
    """

    def __init__(self, rows: int) -> None:
        self.place = place = Place()
        self._made = made = list[_RowLayer]()

        def new_layer() -> _RowLayer:
            made.append(_RowLayer(rows, place, len(made)))
            return made[-1]

        super().__init__(layer_class_to_replicate=cast("Any", new_layer))

    def move(self, source: int, target: int, length: int) -> None:
        """Put a row of so many tokens into the place of another."""
        for tensor in self._tensors():
            tensor[target, :, :length] = tensor[source, :, :length]

    def clear(self, row: int) -> None:
        """Write zeros over a row."""
        for tensor in self._tensors():
            tensor[row] = 0

    def beginning(self, length: int) -> Beginning:
        """A copy of the first so many tokens of the first row."""
        copies = [tensor[0, :, :length].clone() for tensor in self._tensors()]
        return list(zip(copies[::2], copies[1::2], strict=True))

    def _tensors(self) -> list[Tensor]:
        """Keys and values of each layer in turn, (rows, H, W, D)."""
        return [tensor for layer in self._made for tensor in layer.kept]


class _RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    def __init__(self, rows: int, place: Place, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows, self._place, self._number = rows, place, number
        self.kept: tuple[Tensor, ...] = ()

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (rows, H, Q, D); return all that is read."""
        self.lazy_initialization(key_states, value_states)
        given = self._place.beginning
        front = (None, None) if given is None else given[self._number]
        keys, values = self.kept
        return (
            self._write(keys, key_states, front[0]),
            self._write(values, value_states, front[1]),
        )

    def _write(self, kept: Tensor, new: Tensor, front: Tensor | None) -> Tensor:
        place = self._place
        rows = kept[place.first : place.first + place.rows]
        if place.at is not None:
            # A layer's rows lie on its own device, where a model has several.
            numbers, spots = (index.to(rows.device) for index in place.at)
            rows[numbers, :, spots] = new[:, :, 0]
        else:
            rows[:, :, place.start : place.start + new.shape[2]] = new
        if front is not None:
            rows[:, :, : place.start] = front[:, : place.start]
        return rows[:, :, : place.width]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for what the place says."""
        keys, values = self.kept or (None, None)
        self.kept = (self._room(keys, key_states), self._room(values, value_states))
        self.is_initialized = True

    def _room(self, kept: Tensor | None, new: Tensor) -> Tensor:
        held = 0 if kept is None else kept.shape[2]
        if kept is not None and self._place.width <= held:
            return kept
        width = max(self._place.width, int(held * _GROWTH), held + _STEP)
        _, heads, _, size = new.shape
        grown = new.new_zeros(self._rows, heads, width, size)
        if kept is not None:
            grown[:, :, :held] = kept
        return grown

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Places that are read, and where they begin."""
        return self._place.width, 0

    def get_seq_length(self) -> int:
        """Where new tokens begin."""
        return self._place.start

    def get_max_length(self) -> int:
        """No limit."""
        return -1
