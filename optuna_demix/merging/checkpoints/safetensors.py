"""Read the header of one safetensors file, trusting nothing in it.

Only the header is read: eight bytes of length, then JSON. Every claim is checked against the size
of the file before anyone acts on it, so later reads at these offsets cannot go astray.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna_demix.merging._problem import problem, read_problem

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the bound of the safetensors format
_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}
_REMEDY = "save or download the checkpoint again"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: ``nbytes`` bytes from byte ``start`` of ``file``, row-major."""

    file: Path
    dtype: str  # safetensors name, e.g. "BF16"
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(file: Path, place: str) -> dict[str, TensorEntry]:
    """Return the tensors of a safetensors file by name.

    Args:
        file: The file.
        place: Whose file it is, for messages.

    Raises:
        ComponentError: If the file is unreadable, truncated or inconsistent, or holds an element
            type that cannot be averaged in principle (quantized floats).
    """
    try:
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            raw_length = stream.read(_LENGTH_BYTES)
            length = int.from_bytes(raw_length, "little")
            if length > _MAX_HEADER_BYTES:
                what = f"not a safetensors file: its header claims {length} bytes"
                raise problem(place, what, _REMEDY, file=file)
            if len(raw_length) < _LENGTH_BYTES or _LENGTH_BYTES + length > size:
                what = f"truncated: {size} bytes end before the safetensors header does"
                raise problem(place, what, _REMEDY, file=file)
            raw = stream.read(length)
    except OSError as error:
        raise read_problem(place, error, file) from error
    table = _parse(raw, file, place)
    entries = {
        name: _entry(name, value, file, place, data_start=_LENGTH_BYTES + length)
        for name, value in table.items()
    }
    _check_extent(entries, file, place, data_start=_LENGTH_BYTES + length, size=size)
    return entries


def _parse(raw: bytes, file: Path, place: str) -> dict[str, Any]:
    try:
        table = json.loads(raw, object_pairs_hook=_without_duplicates)
        if not isinstance(table, dict):
            raise ValueError("the header is not a JSON object")
    except (ValueError, RecursionError) as error:
        what = f"unreadable safetensors header ({error})"
        raise problem(place, what, _REMEDY, file=file) from error
    table.pop("__metadata__", None)
    return table


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(name: str, value: Any, file: Path, place: str, *, data_start: int) -> TensorEntry:
    dtype, shape, begin, end = _fields(name, value, file, place)
    if dtype not in _ITEM_BYTES:
        what = f"tensor {name!r} is stored as {dtype}, which cannot be averaged"
        remedy = "load the model dequantized and save it in bfloat16, float16 or float32"
        raise problem(place, what, remedy, file=file)
    nbytes = math.prod(shape) * _ITEM_BYTES[dtype]
    if end - begin != nbytes:
        what = f"tensor {name!r} needs {nbytes} bytes but the header gives it {end - begin}"
        raise problem(place, what, _REMEDY, file=file)
    return TensorEntry(file, dtype, shape, data_start + begin, nbytes)


def _fields(
    name: str, value: Any, file: Path, place: str
) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [begin, end, *shape]
        well_formed = isinstance(dtype, str) and all(
            type(number) is int and number >= 0 for number in numbers
        )
    except (TypeError, KeyError, ValueError):
        well_formed = False
    if not well_formed:
        what = f"unreadable safetensors header (the entry of tensor {name!r} is malformed)"
        raise problem(place, what, _REMEDY, file=file)
    return dtype, tuple(shape), begin, end


def _check_extent(
    entries: dict[str, TensorEntry], file: Path, place: str, *, data_start: int, size: int
) -> None:
    """Tensors must follow each other without gap or overlap and end where the file ends."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != position:
            what = f"tensor {name!r} begins at byte {entry.start}, not at {position}"
            raise problem(place, what, _REMEDY, file=file)
        position += entry.nbytes
    if position > size:
        what = f"truncated: its tensors need {position} bytes, the file has {size}"
        raise problem(place, what, _REMEDY, file=file)
    if position < size:
        what = f"damaged: {size - position} bytes follow the last tensor"
        raise problem(place, what, _REMEDY, file=file)
