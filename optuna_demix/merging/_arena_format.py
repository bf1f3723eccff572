"""The arena file, byte by byte.

::

    0       magic "DEMIXARN", version u32, zero u32, length of the JSON u64, SHA-256 of the JSON
    64      JSON header: names, digests, dtype, layout, sizes of the attached files, key
    align   attached files: config, tokenizer, … of the first component, back to back
    align   CRC-32 of every block of every component, u32 (n_blocks, K)
    page    data (n_blocks, K, block_size), the components' elements side by side

All integers are little-endian. Offsets follow from the sizes and are not stored, no path and no
date is stored: equal components give equal bytes on every host.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from optuna_demix.merging._dtypes import as_dtype, dtype_name
from optuna_demix.merging._layout import Layout, Slot, align
from optuna_demix.merging._problem import problem, read_problem

if TYPE_CHECKING:
    from pathlib import Path

    from optuna_demix.errors import ComponentError

MAGIC = b"DEMIXARN"
VERSION = 1  # of the layout; older arenas are rebuilt
_PREAMBLE = struct.Struct("<8sIIQ32s")
_JSON_START = 64
_SECTION_ALIGNMENT = 64
_PAGE = 1 << 16  # the largest page size in common use
_LARGEST_JSON = 1 << 28
CHECKSUM_BYTES = 4
REBUILD = "delete it; it is built again from the components"


@dataclass(frozen=True)
class AttachedFile:
    """A small file of the first component carried inside the arena."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class ArenaHeader:
    """Everything about an arena but its contents."""

    names: tuple[str, ...]
    digests: dict[str, str]
    dtype: torch.dtype
    layout: Layout
    files: tuple[AttachedFile, ...]

    @property
    def key(self) -> str:
        """SHA-256 that changes with the components, their order, the dtype and the layout."""
        return hashlib.sha256(_to_bytes({"version": VERSION, **self._fields()})).hexdigest()

    def _fields(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "digests": self.digests,
            "dtype": dtype_name(self.dtype),
            "block_size": self.layout.block_size,
            "tensors": [[slot.name, list(slot.shape), slot.offset] for slot in self.layout.slots],
            "files": [[file.name, file.nbytes, file.sha256] for file in self.files],
        }

    def to_json(self) -> bytes:
        """Return the JSON of the header."""
        return _to_bytes({"key": self.key, **self._fields()})

    @classmethod
    def from_json(cls, raw: bytes) -> ArenaHeader:
        """Read what `to_json` wrote."""
        fields = json.loads(raw)
        slots = tuple(
            Slot(name, tuple(shape), offset) for name, shape, offset in fields["tensors"]
        )
        return cls(
            names=tuple(fields["names"]),
            digests=fields["digests"],
            dtype=as_dtype(fields["dtype"]),
            layout=Layout(slots, fields["block_size"]),
            files=tuple(AttachedFile(*file) for file in fields["files"]),
        )


@dataclass(frozen=True)
class Sections:
    """Byte offsets in an arena file."""

    files: int
    checksums: int
    data: int
    end: int


def sections(header: ArenaHeader, json_length: int) -> Sections:
    """Return where everything lies."""
    files = align(_JSON_START + json_length, _SECTION_ALIGNMENT)
    checksums = align(files + sum(file.nbytes for file in header.files), _SECTION_ALIGNMENT)
    n_rows = header.layout.n_blocks * len(header.names)
    data = align(checksums + n_rows * CHECKSUM_BYTES, _PAGE)
    return Sections(files, checksums, data, data + n_rows * row_bytes(header))


def row_bytes(header: ArenaHeader) -> int:
    """Return the size of one block of one component."""
    return header.layout.block_size * header.dtype.itemsize


def encode_preamble(raw: bytes) -> bytes:
    """Return the first bytes of the file, up to and including the JSON ``raw``."""
    preamble = _PREAMBLE.pack(MAGIC, VERSION, 0, len(raw), hashlib.sha256(raw).digest())
    return preamble.ljust(_JSON_START, b"\0") + raw


def read_preamble(path: Path) -> tuple[ArenaHeader, Sections]:
    """Read and check the header of an arena file.

    Raises:
        ComponentError: If the file is missing, no arena, of another version or damaged.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(_PREAMBLE.size)
            if not start.startswith(MAGIC):
                remedy = "name a file made by Arena.build"
                raise problem("arena", "not an arena", remedy, file=path)
            if len(start) < _PREAMBLE.size:
                raise _truncated(path, size)
            _, version, _, length, sha256 = _PREAMBLE.unpack(start)
            if version != VERSION:
                what = f"written in layout {version}, not {VERSION}"
                raise problem("arena", what, REBUILD, file=path)
            if length > min(size, _LARGEST_JSON):
                raise _truncated(path, size)
            stream.seek(_JSON_START)
            raw = stream.read(length)
    except OSError as error:
        raise read_problem("arena", error, path) from error
    if hashlib.sha256(raw).digest() != sha256:
        raise problem("arena", "its header is damaged", REBUILD, file=path)
    header = ArenaHeader.from_json(raw)
    where = sections(header, length)
    if size != where.end:
        raise _truncated(path, size, where.end)
    return header, where


def _truncated(path: Path, size: int, expected: int | None = None) -> ComponentError:
    of = f" of {expected}" if expected is not None else ""
    return problem("arena", f"truncated: {size}{of} bytes", REBUILD, file=path)


def _to_bytes(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
